/* SPDX-License-Identifier: MIT */
/*
 * Allocation flags: the bits and the named combinations.
 *
 * Answers to: include/linux/gfp_types.h.  Bit values are those of Linux 6.18, so that the raw
 * gfp_flags of a recorded trace can be used as they are.
 * Left out: KASAN, lockdep and zero-tag bits, which mean nothing here.
 */
#ifndef SHM_GFP_H
#define SHM_GFP_H

#define __GFP_DMA 0x1u
#define __GFP_HIGHMEM 0x2u
#define __GFP_DMA32 0x4u
#define __GFP_MOVABLE 0x8u
#define __GFP_RECLAIMABLE 0x10u
#define __GFP_HIGH 0x20u
#define __GFP_IO 0x40u
#define __GFP_FS 0x80u
#define __GFP_ZERO 0x100u
#define __GFP_DIRECT_RECLAIM 0x400u
#define __GFP_KSWAPD_RECLAIM 0x800u
#define __GFP_WRITE 0x1000u
#define __GFP_NOWARN 0x2000u
#define __GFP_RETRY_MAYFAIL 0x4000u
#define __GFP_NOFAIL 0x8000u
#define __GFP_NORETRY 0x10000u
#define __GFP_MEMALLOC 0x20000u
#define __GFP_COMP 0x40000u
#define __GFP_NOMEMALLOC 0x80000u
#define __GFP_HARDWALL 0x100000u
#define __GFP_THISNODE 0x200000u
#define __GFP_ACCOUNT 0x400000u
#define __GFP_NO_OBJ_EXT 0x1000000u
#define __GFP_ALL 0x17ffdffu

#define __GFP_RECLAIM 0xc00u
#define GFP_ATOMIC 0x820u
#define GFP_KERNEL 0xcc0u
#define GFP_KERNEL_ACCOUNT 0x400cc0u
#define GFP_NOWAIT 0x2800u
#define GFP_NOIO 0xc00u
#define GFP_NOFS 0xc40u
#define GFP_USER 0x100cc0u
#define GFP_DMA 0x1u
#define GFP_DMA32 0x4u
#define GFP_HIGHUSER 0x100cc2u
#define GFP_HIGHUSER_MOVABLE 0x100ccau

#endif
