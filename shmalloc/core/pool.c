/* SPDX-License-Identifier: MIT */
/*
 * Areas: elements of one size in blocks of pages.
 *
 * Answers to: kernel/bpf/syscall.c (bpf_map_area_alloc).
 * Changed: there is no vmalloc, so an area is a list of blocks: the largest that is not larger than what is
 * still needed, then the next.  No element crosses the end of its block, so where the size divides no page
 * the area may be a page or so larger than the bytes.  Left out: accounting to a memcg.
 * Context: task.
 */
#include "pool.h"

#define AREA_GFP (GFP_KERNEL | __GFP_NOWARN)

/* Each round of Newton's doubles the bits of the inverse that are right; d itself has three. */
__slowpath struct exact_divisor exact_divisor(u32 by)
{
	u32 shift = (u32)__builtin_ctz(by), odd = by >> shift, inverse = odd;

	for (u32 bits = 3; bits < 32; bits *= 2)
		inverse *= 2 - odd * inverse;
	return (struct exact_divisor){ .inverse = inverse, .shift = shift };
}

__slowtext static u32 order_holding(u64 bytes)
{
	return fls64((bytes - 1) >> SHM_PAGE_SHIFT);
}

/* As large a block as is needed, or a smaller one if there is none. */
__slowpath static struct page *block_alloc(const struct shm_area *area, u64 bytes, u32 *order)
{
	u32 least = order_holding(area->elem_size), wanted = ilog2((bytes + SHM_PAGE_SIZE - 1) >> SHM_PAGE_SHIFT);

	for (*order = clamp_of(wanted, least, SHM_MAX_PAGE_ORDER);; --*order) {
		struct page *page = alloc_pages(AREA_GFP, NO_NODE, *order);

		if (page || *order == least)
			return page;
	}
}

/* 0 or -ENOMEM, and then nothing is held. */
__slowpath int area_alloc(struct shm_area *area, u32 nr_elems, u32 elem_size)
{
	u32 done = 0;

	*area = (struct shm_area){
		.nr_elems = nr_elems, .elem_size = elem_size, .divide = exact_divisor(elem_size),
	};
	while (done < nr_elems && area->nr_blocks < SHM_AREA_BLOCKS) {
		struct page *page;
		u32 order, count;

		page = block_alloc(area, (u64)(nr_elems - done) * elem_size, &order);
		if (!page)
			break;
		count = (u32)min_of(((u64)SHM_PAGE_SIZE << order) / elem_size, (u64)nr_elems - done);
		area->blocks[area->nr_blocks++] = (struct area_block){
			.offset = page_to_off(page), .nr_elems = count, .order = order,
		};
		area->nr_pages += 1u << order;
		done += count;
	}
	if (done == nr_elems)
		return 0;
	area_free(area);
	return -ENOMEM;
}

__slowpath void area_free(struct shm_area *area)
{
	for (u32 i = area->nr_blocks; i-- > 0;)
		free_pages(off_to_page(area->blocks[i].offset), area->blocks[i].order);
	area->nr_blocks = area->nr_pages = area->nr_elems = 0;
}

/*
 * Answers to: alloc_pages_exact_nid.  Pages in a row, as many as the bytes need: the rest of the block that they
 * were taken from goes back at once.  0: none, or more than the largest block.
 */
__slowpath u64 alloc_pages_exact(u64 bytes, int node)
{
	u32 order = order_holding(bytes);
	u64 pages = (bytes + SHM_PAGE_SIZE - 1) >> SHM_PAGE_SHIFT;
	struct page *page = order <= SHM_MAX_PAGE_ORDER ? alloc_pages(AREA_GFP, node, order) : NULL;

	if (!page)
		return 0;
	page->order = 0;
	for (u64 i = 1; i < 1ull << order; i++)
		page[i] = (struct page){ .flags = PG_allocated, .refcount = 1, .migratetype = page->migratetype };
	for (u64 i = pages; i < 1ull << order; i++)
		free_pages(&page[i], 0);
	return page_to_off(page);
}

/* Any context. */
__slowpath void free_pages_exact(u64 off, u32 pages)
{
	struct page *page = off_to_page(off);

	for (u32 i = 0; i < pages; i++) {
		if (in_nmi())
			free_pages_nolock(&page[i], 0);
		else
			free_pages(&page[i], 0);
	}
}
