/* SPDX-License-Identifier: MIT */
/*
 * Doubly linked lists and lock-free stacks whose links are arena offsets.
 * Answers to: include/linux/list.h, include/linux/llist.h.
 */
#ifndef SHM_LIST_H
#define SHM_LIST_H

#include "core.h"

__helper struct list_head *list_ptr(u64 off)
{
	return ptr_of(off);
}

__helper void list_init(struct list_head *head)
{
	head->next = head->prev = off_of(head);
}

__helper bool list_empty(const struct list_head *head)
{
	return READ_ONCE(head->next) == off_of(head);
}

__helper void list_insert(struct list_head *item, struct list_head *prev, struct list_head *next)
{
	item->next = off_of(next);
	item->prev = off_of(prev);
	next->prev = off_of(item);
	WRITE_ONCE(prev->next, off_of(item));
}

__helper void list_add(struct list_head *item, struct list_head *head)
{
	list_insert(item, head, list_ptr(head->next));
}

__helper void list_add_tail(struct list_head *item, struct list_head *head)
{
	list_insert(item, list_ptr(head->prev), head);
}

__helper void list_del(struct list_head *item)
{
	struct list_head *prev = list_ptr(item->prev), *next = list_ptr(item->next);

	next->prev = item->prev;
	WRITE_ONCE(prev->next, item->next);
	item->next = item->prev = 0;
}

__helper struct page *list_page(u64 off)
{
	return container_of(list_ptr(off), struct page, lru);
}

/* Push a chain [first .. last] of link words; true if the stack was empty.  Any context. */
__helper bool llist_add_batch(u64 *first, u64 *last, struct llist_head *head)
{
	u64 old = READ_ONCE(head->first);

	do {
		*last = old;
	} while (!try_cmpxchg(&head->first, &old, off_of(first)));
	return !old;
}

__helper bool llist_add(u64 *node, struct llist_head *head)
{
	return llist_add_batch(node, node, head);
}

/* Take the whole stack; pairs with llist_add.  Any context. */
__helper u64 llist_del_all(struct llist_head *head)
{
	return READ_ONCE(head->first) ? xchg(&head->first, 0) : 0;
}

/* The same two for a stack that only its CPU touches, in any context. */
__helper bool this_cpu_llist_add(u64 *node, struct llist_head *head)
{
	u64 old = READ_ONCE(head->first);

	do {
		*node = old;
	} while (unlikely(!this_cpu_try_cmpxchg64(&head->first, &old, off_of(node))));
	return !old;
}

__helper u64 this_cpu_llist_del_all(struct llist_head *head)
{
	u64 first = READ_ONCE(head->first);

	while (first && unlikely(!this_cpu_try_cmpxchg64(&head->first, &first, 0)))
		;
	return first;
}

/* A chain that nobody else sees yet, put before a stack's in one go: as if its links had been pushed one by one. */
struct llist_chain {
	u64 *first;
	u64 *last;
};

__helper void llist_chain_add(u64 *node, struct llist_chain *chain)
{
	*node = chain->first ? off_of(chain->first) : 0;
	chain->first = node;
	if (!chain->last)
		chain->last = node;
}

__helper void llist_add_chain(const struct llist_chain *chain, struct llist_head *head)
{
	if (chain->first)
		llist_add_batch(chain->first, chain->last, head);
}

#endif
