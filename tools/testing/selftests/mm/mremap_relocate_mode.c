// SPDX-License-Identifier: GPL-2.0-only
/*
 * Relocation for programs that do not ask for it: the sysctl
 * vm.mremap_relocate, prctl(PR_SET_MREMAP_RELOCATE), which moves each of their
 * modes relocates, and what they must not change.
 *
 * In the pictures '.' is a page of the arena that is reserved and not usable,
 * a letter is a page that belongs to a mapping, faulted in if it is a capital,
 * and brackets enclose one VMA.
 */
#include "kselftest_harness.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "mremap_relocate_util.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP		4
#endif
#ifndef MFD_HUGETLB
#define MFD_HUGETLB			0x0004U
#endif

#define OFF		PR_MREMAP_RELOCATE_OFF
#define CHEAP		PR_MREMAP_RELOCATE_CHEAP
#define ALL		PR_MREMAP_RELOCATE_ALL
#define AS_SYSCTL	PR_MREMAP_RELOCATE_SYSCTL

#define SYSCTL		"/proc/sys/vm/mremap_relocate"
#define ARENA_PAGES	100

static int set_mode(int mode)
{
	return prctl(PR_SET_MREMAP_RELOCATE, mode, 0, 0, 0);
}

static int get_mode(void)
{
	return prctl(PR_GET_MREMAP_RELOCATE, 0, 0, 0, 0);
}

static char *map_filled(struct arena *arena, size_t page, size_t nr,
			unsigned long seed)
{
	char *ptr = arena_map(arena, page, nr);

	fill(ptr, nr, seed);
	return ptr;
}

/* ..[AAAAA]..[BBBBB].....   ->   .._____..[BBBBBAAAAA].. if it is relocated */
static bool is_relocated(struct arena *arena, int flags)
{
	char *left = map_filled(arena, 50, 5, 1);
	char *ptr = map_filled(arena, 10, 5, 2);
	char *to = arena_at(arena, 55);
	bool merged;

	if (relocate(ptr, 5, flags, to) != to)
		ksft_exit_fail_perror("mremap");
	merged = nr_vmas(arena, left, 10) == 1;
	if (!intact(left, 5, 1) || !intact(to, 5, 2))
		ksft_exit_fail_msg("contents lost\n");
	arena_unmap(arena, 0, arena->nr);
	return merged;
}

/* The mode that our own moves show, whatever the kernel says about it. */
static int observed_mode(struct arena *arena)
{
	bool some = is_relocated(arena, 0);
	bool all = is_relocated(arena, MREMAP_DONTUNMAP);

	if (all && !some)
		ksft_exit_fail_msg("only MREMAP_DONTUNMAP is relocated\n");
	return all ? ALL : some ? CHEAP : OFF;
}

/* The prctl(), in a process that follows the sysctl otherwise. */
FIXTURE(process)
{
	struct arena arena;
};

FIXTURE_VARIANT(process)
{
	int mode;
};

FIXTURE_VARIANT_ADD(process, off)
{
	.mode = OFF,
};

FIXTURE_VARIANT_ADD(process, cheap)
{
	.mode = CHEAP,
};

FIXTURE_VARIANT_ADD(process, all)
{
	.mode = ALL,
};

FIXTURE_SETUP(process)
{
	ASSERT_EQ(set_mode(AS_SYSCTL), 0);
	arena_init(&self->arena, ARENA_PAGES, 0);
}

FIXTURE_TEARDOWN(process)
{
	arena_exit(&self->arena);
}

TEST_F(process, set_and_get)
{
	EXPECT_EQ(get_mode(), AS_SYSCTL);
	ASSERT_EQ(set_mode(variant->mode), 0);
	EXPECT_EQ(get_mode(), variant->mode);
	EXPECT_EQ(observed_mode(&self->arena), variant->mode);

	/* Again, and back. */
	ASSERT_EQ(set_mode(variant->mode), 0);
	EXPECT_EQ(get_mode(), variant->mode);
	ASSERT_EQ(set_mode(AS_SYSCTL), 0);
	EXPECT_EQ(get_mode(), AS_SYSCTL);
}

TEST_F(process, bad_arguments)
{
	const unsigned long bad[] = {
		AS_SYSCTL + 1, 255, 256, -1UL, 1UL << 31, (1UL << 31) << 1,
	};
	size_t i;

	ASSERT_EQ(set_mode(variant->mode), 0);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		if (!bad[i])
			continue;	/* No bit 32 here. */
		EXPECT_EQ(prctl(PR_SET_MREMAP_RELOCATE, bad[i], 0, 0, 0), -1) {
			TH_LOG("%lx", bad[i]);
		}
		EXPECT_EQ(errno, EINVAL);
	}
	for (i = 0; i < 3; i++) {
		errno = 0;
		EXPECT_EQ(prctl(PR_SET_MREMAP_RELOCATE, OFF, i == 0, i == 1,
				i == 2), -1);
		EXPECT_EQ(errno, EINVAL);
	}
	for (i = 0; i < 4; i++) {
		errno = 0;
		EXPECT_EQ(prctl(PR_GET_MREMAP_RELOCATE, i == 0, i == 1, i == 2,
				i == 3), -1);
		EXPECT_EQ(errno, EINVAL);
	}
	EXPECT_EQ(get_mode(), variant->mode);
	EXPECT_EQ(observed_mode(&self->arena), variant->mode);
}

TEST_F(process, forked)
{
	struct arena *arena = &self->arena;
	pid_t pid;

	ASSERT_EQ(set_mode(variant->mode), 0);
	pid = fork_child(arena);
	if (!pid) {
		if (get_mode() != variant->mode ||
		    observed_mode(arena) != variant->mode)
			_exit(1);
		/* What it sets is its own. */
		_exit(set_mode(variant->mode == OFF ? ALL : OFF) ? 2 : 0);
	}
	EXPECT_TRUE(reap(pid));
	EXPECT_EQ(get_mode(), variant->mode);
	EXPECT_EQ(observed_mode(arena), variant->mode);

	/* The other way round: it has what we had. */
	pid = fork_child(arena);
	if (!pid) {
		pid = fork_child(arena);
		if (!pid)
			_exit(get_mode() != variant->mode);
		_exit(!reap(pid));
	}
	ASSERT_EQ(set_mode(AS_SYSCTL), 0);
	EXPECT_TRUE(reap(pid));
}

/* What is executed below: does it have, and show, this mode? */
static int executed(int mode)
{
	struct arena arena;

	arena_init(&arena, ARENA_PAGES, 0);
	return get_mode() != mode || observed_mode(&arena) != mode;
}

TEST_F(process, executed)
{
	const char mode[] = { '0' + variant->mode, '\0' };
	pid_t pid;

	ASSERT_EQ(set_mode(variant->mode), 0);
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		execl("/proc/self/exe", "mremap_relocate_mode", "--executed",
		      mode, NULL);
		_exit(1);
	}
	EXPECT_TRUE(reap(pid));
}

static void *set_by_thread(void *mode)
{
	return (void *)(long)set_mode(*(const int *)mode);
}

/* It belongs to the address space. */
TEST_F(process, set_by_thread)
{
	pthread_t thread;
	void *ret;

	ASSERT_EQ(pthread_create(&thread, NULL, set_by_thread,
				 (void *)&variant->mode), 0);
	ASSERT_EQ(pthread_join(thread, &ret), 0);
	EXPECT_EQ(ret, NULL);
	EXPECT_EQ(get_mode(), variant->mode);
	EXPECT_EQ(observed_mode(&self->arena), variant->mode);
}

/* A call that asks is served in each mode. */
TEST_F(process, flags_do_not_care)
{
	struct arena *arena = &self->arena;
	struct snapshot snap;
	struct step step;
	char *ptr, *to;
	pid_t pid;

	ASSERT_EQ(set_mode(variant->mode), 0);
	EXPECT_TRUE(is_relocated(arena, RELOCATE_ANON));
	EXPECT_TRUE(is_relocated(arena, MUST_RELOCATE_ANON));
	EXPECT_TRUE(is_relocated(arena, RELOCATE_ANON | MREMAP_DONTUNMAP));
	EXPECT_TRUE(is_relocated(arena, MUST_RELOCATE_ANON | MREMAP_DONTUNMAP));

	/* And learns that it cannot be done. */
	ptr = map_filled(arena, 10, 5, 1);
	to = arena_at(arena, 50);
	pid = share_with_child(arena, ptr, 5, 0, 1, &step);
	snapshot_take(&snap, arena, ptr, 5);
	EXPECT_TRUE(is_refused(&snap, ptr, 5, MUST_RELOCATE_ANON, to));
	ASSERT_EQ(relocate(ptr, 5, RELOCATE_ANON, to), to);
	EXPECT_TRUE(intact(to, 5, 1));
	tell_child(&step);
	EXPECT_TRUE(reap(pid));
}

/* Nothing happens to memory that does not move, as nobody asks for it. */
TEST_F(process, not_in_place)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, 50, 5, 1);
	char *ptr = map_filled(arena, 10, 5, 2);
	char *to = arena_at(arena, 55);

	ASSERT_EQ(set_mode(OFF), 0);
	ASSERT_EQ(relocate(ptr, 5, 0, to), to);
	ASSERT_EQ(nr_vmas(arena, left, 10), 2);

	ASSERT_EQ(set_mode(variant->mode), 0);
	ASSERT_EQ(sys_mremap(left, PAGES(10), PAGES(10), MREMAP_MAYMOVE, NULL),
		  left);
	ASSERT_EQ(sys_mremap(to, PAGES(5), PAGES(5), MREMAP_MAYMOVE, NULL), to);
	ASSERT_EQ(sys_mremap(to, PAGES(5), PAGES(5), 0, NULL), to);
	ASSERT_EQ(sys_mremap(to, PAGES(5), PAGES(4), MREMAP_MAYMOVE, NULL), to);
	EXPECT_TRUE(is_one_vma(arena, left, 5));
	EXPECT_TRUE(is_one_vma(arena, to, 4));

	/* What was meant to be seen. */
	ASSERT_EQ(sys_mremap(to, PAGES(4), PAGES(4),
			     MREMAP_MAYMOVE | RELOCATE_ANON, NULL), to);
	EXPECT_TRUE(is_one_vma(arena, left, 9));
	EXPECT_TRUE(healthy(arena, left, 5, 1));
	EXPECT_TRUE(healthy(arena, to, 4, 2));
}

/* realloc() of a big block: grows, has no room, and goes where there is. */
TEST_F(process, grows_without_a_place)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to;

	ASSERT_EQ(set_mode(variant->mode), 0);
	to = sys_mremap(ptr, PAGES(5), PAGES(200), MREMAP_MAYMOVE, NULL);
	ASSERT_NE(to, MAP_FAILED);
	ASSERT_NE(to, ptr);
	EXPECT_TRUE(all_zero(to + PAGES(5), 195));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
	EXPECT_EQ(fits_in_again(arena, to, 200), variant->mode != OFF);
	EXPECT_EQ(munmap(to, PAGES(200)), 0);
}

TEST_F(process, same_errors)
{
	const int fixed = MREMAP_MAYMOVE | MREMAP_FIXED;
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to = arena_at(arena, 50);
	struct snapshot snap;
	size_t i;

	const struct {
		const char *what;
		char *from;
		size_t old_len, new_len;
		int flags;
		char *to;
		int error;
	} calls[] = {
		{ "unknown flag", ptr, PAGES(5), PAGES(5), fixed | 32, to, EINVAL },
		{ "no MREMAP_MAYMOVE", ptr, PAGES(5), PAGES(5), MREMAP_FIXED, to, EINVAL },
		{ "no place to grow", ptr, PAGES(5), PAGES(6), 0, to, ENOMEM },
		{ "odd source", ptr + 1, PAGES(5), PAGES(5), fixed, to, EINVAL },
		{ "odd destination", ptr, PAGES(5), PAGES(5), fixed, to + 1, EINVAL },
		{ "overlap", ptr, PAGES(5), PAGES(5), fixed, ptr + PAGES(4), EINVAL },
		{ "resize and keep", ptr, PAGES(5), PAGES(6),
		  fixed | MREMAP_DONTUNMAP, to, EINVAL },
		{ "not one VMA, growing", ptr, PAGES(6), PAGES(7), fixed, to, EFAULT },
	};

	ASSERT_EQ(set_mode(variant->mode), 0);
	snapshot_take(&snap, arena, ptr, 5);
	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		EXPECT_EQ(sys_mremap(calls[i].from, calls[i].old_len,
				     calls[i].new_len, calls[i].flags,
				     calls[i].to), MAP_FAILED) {
			TH_LOG("%s", calls[i].what);
		}
		EXPECT_EQ(errno, calls[i].error) {
			TH_LOG("%s", calls[i].what);
		}
	}
	EXPECT_TRUE(snapshot_same(&snap));
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
}

/* The sysctl, which needs root, and is put back whatever becomes of the test. */
FIXTURE(everybody)
{
	char saved[16];
};

FIXTURE_SETUP(everybody)
{
	int fd = open(SYSCTL, O_RDWR);

	if (fd < 0)
		SKIP(return, "the sysctl cannot be written: not root");
	ASSERT_GT(read(fd, self->saved, sizeof(self->saved) - 1), 0);
	close(fd);
	ASSERT_EQ(set_mode(AS_SYSCTL), 0);
}

FIXTURE_TEARDOWN_PARENT(everybody)
{
	if (self->saved[0])
		write_text(SYSCTL, self->saved);
}

static int read_sysctl(void)
{
	char text[16] = "";
	int fd = open(SYSCTL, O_RDONLY);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		ksft_exit_fail_perror(SYSCTL);
	close(fd);
	return atoi(text);
}

TEST_F(everybody, follows)
{
	const char *const modes[] = { "0", "1", "2", "0" };
	struct arena arena;
	size_t i;

	arena_init(&arena, ARENA_PAGES, 0);
	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		ASSERT_TRUE(write_text(SYSCTL, modes[i]));
		EXPECT_EQ(read_sysctl(), atoi(modes[i]));
		EXPECT_EQ(get_mode(), AS_SYSCTL);
		EXPECT_EQ(observed_mode(&arena), atoi(modes[i]));
	}
	arena_exit(&arena);
}

TEST_F(everybody, is_overridden)
{
	const char *const modes[] = { "0", "1", "2" };
	struct arena arena;
	size_t i;
	int mode;

	arena_init(&arena, ARENA_PAGES, 0);
	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		ASSERT_TRUE(write_text(SYSCTL, modes[i]));
		for (mode = OFF; mode <= ALL; mode++) {
			ASSERT_EQ(set_mode(mode), 0);
			EXPECT_EQ(get_mode(), mode);
			EXPECT_EQ(observed_mode(&arena), mode);
		}
		/* Neither has changed the other. */
		EXPECT_EQ(read_sysctl(), atoi(modes[i]));
		ASSERT_EQ(set_mode(AS_SYSCTL), 0);
		EXPECT_EQ(observed_mode(&arena), atoi(modes[i]));
	}
	arena_exit(&arena);
}

TEST_F(everybody, bad_values)
{
	const char *const bad[] = { "3", "-1", "256", "4294967296", "x", "all" };
	size_t i;

	ASSERT_TRUE(write_text(SYSCTL, "1"));
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_FALSE(write_text(SYSCTL, bad[i])) {
			TH_LOG("%s", bad[i]);
		}
		EXPECT_EQ(errno, EINVAL);
	}
	EXPECT_EQ(read_sysctl(), 1);
}

/*
 * Which moves are cheap? Each is made in mode CHEAP, and in mode ALL, which
 * relocates it whatever it costs.
 */
#define LIMIT	(64UL << 20)

FIXTURE(rule)
{
	struct arena arena;
	size_t table;			/* pages that one page table maps */
	size_t limit;			/* pages */
	char *ptr, *to;
};

FIXTURE_VARIANT(rule)
{
	int mode;
};

FIXTURE_VARIANT_ADD(rule, cheap)
{
	.mode = CHEAP,
};

FIXTURE_VARIANT_ADD(rule, all)
{
	.mode = ALL,
};

FIXTURE_SETUP(rule)
{
	self->table = psize() / sizeof(__u64);
	self->limit = LIMIT / psize();
	ASSERT_EQ(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	ASSERT_EQ(set_mode(variant->mode), 0);
	arena_init(&self->arena, 2 * self->limit + 16 * self->table, PAGES(self->table));
	self->ptr = arena_at(&self->arena, 3);
	/* Not equally far from the start of a page table, unless a test says so. */
	self->to = arena_at(&self->arena, self->limit + 8 * self->table + 4);
}

FIXTURE_TEARDOWN(rule)
{
	arena_exit(&self->arena);
}

static char *map_sparse(struct arena *arena, char *ptr, size_t nr)
{
	arena_map(arena, (ptr - arena->base) / psize(), nr);
	fill(ptr, 1, 2);
	fill(ptr + PAGES(nr - 1), 1, 3);
	return ptr;
}

/*
 *     ptr          left                       left
 * ..[A...A]..[B]......   ->   .._____..[BA...A].. if it is relocated
 */
static bool moves_to(struct __test_metadata *_metadata,
		     FIXTURE_DATA(rule) * self, size_t old_nr, size_t new_nr,
		     int flags)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, (self->to - arena->base) / psize() - 1, 1, 1);
	bool relocated;

	map_sparse(arena, self->ptr, old_nr);
	ASSERT_EQ(sys_mremap(self->ptr, PAGES(old_nr), PAGES(new_nr),
			     MREMAP_MAYMOVE | MREMAP_FIXED | flags, self->to),
		  self->to);
	relocated = nr_vmas(arena, left, new_nr + 1) == 1;
	EXPECT_TRUE(intact(left, 1, 1));
	EXPECT_TRUE(healthy(arena, self->to, 1, 2));
	EXPECT_TRUE(healthy(arena, self->to + PAGES(old_nr - 1), 1, 3));
	arena_unmap(arena, 0, arena->nr);
	return relocated;
}

TEST_F(rule, length)
{
	EXPECT_TRUE(moves_to(_metadata, self, self->limit, self->limit, 0));
	EXPECT_EQ(moves_to(_metadata, self, self->limit + 1, self->limit + 1, 0),
		  variant->mode == ALL);
}

/* It is what moves that counts. */
TEST_F(rule, length_and_growth)
{
	EXPECT_TRUE(moves_to(_metadata, self, self->limit, self->limit + 8, 0));
	EXPECT_EQ(moves_to(_metadata, self, self->limit + 1, self->limit + 9, 0),
		  variant->mode == ALL);
}

/*
 * The source begins with page 3 of a page table, and so does the destination.
 * A plain move takes the whole table if the range reaches its end, and if nothing
 * is mapped in front of it; the rule does not look at that.
 */
TEST_F(rule, page_tables)
{
	const size_t rest = self->table - 3;

	self->to = arena_at(&self->arena, self->limit + 8 * self->table + 3);
	EXPECT_TRUE(moves_to(_metadata, self, rest - 1, rest - 1, 0));
	EXPECT_TRUE(moves_to(_metadata, self, rest - 1, rest + 8, 0));
	EXPECT_EQ(moves_to(_metadata, self, rest, rest, 0),
		  variant->mode == ALL);
	EXPECT_EQ(moves_to(_metadata, self, 4 * self->table, 4 * self->table, 0),
		  variant->mode == ALL);

	/* The same by another distance. */
	self->to += PAGES(1);
	EXPECT_TRUE(moves_to(_metadata, self, rest, rest, 0));
	EXPECT_TRUE(moves_to(_metadata, self, 4 * self->table, 4 * self->table, 0));
}

TEST_F(rule, dontunmap)
{
	EXPECT_EQ(moves_to(_metadata, self, 5, 5, MREMAP_DONTUNMAP),
		  variant->mode == ALL);
}

TEST_F(rule, userfaultfd)
{
	struct arena *arena = &self->arena;
	char *left;
	int uffd;

	uffd = open_uffd(0);
	if (uffd < 0)
		SKIP(return, "no userfaultfd, or not root");
	left = map_filled(arena, (self->to - arena->base) / psize() - 5, 5, 1);
	map_filled(arena, (self->ptr - arena->base) / psize(), 5, 2);
	ASSERT_EQ(uffd_register(uffd, self->ptr, PAGES(5), true, false, false), 0);
	ASSERT_EQ(relocate(self->ptr, 5, 0, self->to), self->to);
	/* The registration does not come along, unless events are asked for. */
	EXPECT_EQ(nr_vmas(arena, left, 10), 1);
	EXPECT_TRUE(healthy(arena, self->to, 5, 2));
	close(uffd);
}

/* The length of the call counts, and not that of each mapping in the range. */
static bool two_move_to(struct __test_metadata *_metadata,
			FIXTURE_DATA(rule) * self, size_t first, size_t second)
{
	struct arena *arena = &self->arena;
	bool relocated;

	/* They were written to before they met. */
	map_sparse(arena, self->ptr, first - 1);
	map_sparse(arena, self->ptr + PAGES(first), second);
	arena_map(arena, (self->ptr - arena->base) / psize() + first - 1, 1);
	ASSERT_EQ(nr_vmas(arena, self->ptr, first + second), 2);
	ASSERT_EQ(relocate(self->ptr, first + second, 0, self->to), self->to);
	relocated = nr_vmas(arena, self->to, first + second) == 1;
	EXPECT_TRUE(healthy(arena, self->to, 1, 2));
	EXPECT_TRUE(healthy(arena, self->to + PAGES(first), 1, 2));
	EXPECT_TRUE(healthy(arena, self->to + PAGES(first + second - 1), 1, 3));
	arena_unmap(arena, 0, arena->nr);
	return relocated;
}

TEST_F(rule, several_vmas)
{
	EXPECT_TRUE(two_move_to(_metadata, self, 8, self->limit - 8));
	EXPECT_EQ(two_move_to(_metadata, self, 8, self->limit - 7),
		  variant->mode == ALL);
	EXPECT_EQ(two_move_to(_metadata, self, self->limit - 7, 8),
		  variant->mode == ALL);

	self->to = arena_at(&self->arena, self->limit + 8 * self->table + 3);
	EXPECT_TRUE(two_move_to(_metadata, self, 8, self->table - 12));
	EXPECT_EQ(two_move_to(_metadata, self, 8, self->table - 11),
		  variant->mode == ALL);
}

/* A plain move splits no folio, and a program that has not asked keeps its own. */
FIXTURE(whole)
{
	struct arena arena;
	struct thp_settings saved;
	size_t nr;			/* pages of a folio */
	char *ptr;			/* two of them */
};

FIXTURE_VARIANT(whole)
{
	int mode;
};

FIXTURE_VARIANT_ADD(whole, off)
{
	.mode = OFF,
};

FIXTURE_VARIANT_ADD(whole, cheap)
{
	.mode = CHEAP,
};

FIXTURE_VARIANT_ADD(whole, all)
{
	.mode = ALL,
};

FIXTURE_SETUP(whole)
{
	const int order = 4;

	if (geteuid())
		SKIP(return, "only root may choose the size of folios");
	self->nr = 1ul << order;
	arena_init(&self->arena, 20 * self->nr, PAGES(self->nr));
	if (self->arena.kpageflags < 0)
		SKIP(return, "cannot read /proc/kpageflags");
	if (!thp_set_order(order, &self->saved))
		SKIP(return, "no folios of this size");
	/* From here on there is something to put back. */
	self->ptr = arena_map(&self->arena, self->nr, 2 * self->nr);
	fill(self->ptr, 2 * self->nr, 1);
	thp_write_settings(&self->saved);
	if (folio_pages(&self->arena, self->ptr) != self->nr ||
	    folio_pages(&self->arena, self->ptr + PAGES(self->nr)) != self->nr)
		SKIP(return, "got no folios of this size");
	ASSERT_EQ(set_mode(variant->mode), 0);
}

FIXTURE_TEARDOWN_PARENT(whole)
{
	thp_write_settings(&self->saved);
}

/*
 * ptr
 * [AAAABBBB]..[C]   ->   ____[AABBBB]..[C][AA]
 */
TEST_F(whole, cut_folio)
{
	struct arena *arena = &self->arena;
	const size_t nr = self->nr, half = nr / 2;
	char *left = map_filled(arena, 10 * nr + 2, 1, 2);
	char *to = left + PAGES(1);

	ASSERT_EQ(relocate(self->ptr, half, 0, to), to);
	EXPECT_TRUE(variant->mode == OFF || refused_as("unasked", to));
	EXPECT_EQ(nr_vmas(arena, left, 1 + half), 2);
	EXPECT_EQ(folio_pages(arena, to), nr);
	EXPECT_EQ(folio_pages(arena, self->ptr + PAGES(half)), nr);

	/* Who asks for it gets it. */
	ASSERT_EQ(relocate(to, half, 0, self->ptr), self->ptr);
	ASSERT_EQ(relocate(self->ptr, half, RELOCATE_ANON, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 1 + half));
	EXPECT_EQ(folio_pages(arena, to), 1);
	EXPECT_TRUE(healthy_from(arena, to, half, 1, 0));
	EXPECT_TRUE(healthy_from(arena, self->ptr + PAGES(half), nr + half, 1,
				 half));
}

TEST_F(whole, whole_folio)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, 10 * self->nr + 2, 1, 2);
	char *to = left + PAGES(1);

	ASSERT_EQ(relocate(self->ptr, self->nr, 0, to), to);
	EXPECT_EQ(nr_vmas(arena, left, 1 + self->nr), variant->mode == OFF ? 2 : 1);
	EXPECT_EQ(folio_pages(arena, to), self->nr);
	EXPECT_TRUE(healthy(arena, to, self->nr, 1));
}

/* Memory that cannot be relocated moves as ever, and nothing fails. */
enum kind {
	WITH_CHILD,
	FILE_PRIVATE,
	FILE_SHARED,
	ANON_SHARED,
	DEV_ZERO,
	HUGETLB,
};

FIXTURE(cannot)
{
	struct arena arena;
	size_t nr;
	struct step step;
	pid_t pid;
	bool restore;
	char *ptr, *to;
};

FIXTURE_VARIANT(cannot)
{
	enum kind kind;
};

FIXTURE_VARIANT_ADD(cannot, shared_with_child)
{
	.kind = WITH_CHILD,
};

FIXTURE_VARIANT_ADD(cannot, file_private)
{
	.kind = FILE_PRIVATE,
};

FIXTURE_VARIANT_ADD(cannot, file_shared)
{
	.kind = FILE_SHARED,
};

FIXTURE_VARIANT_ADD(cannot, anon_shared)
{
	.kind = ANON_SHARED,
};

FIXTURE_VARIANT_ADD(cannot, dev_zero_private)
{
	.kind = DEV_ZERO,
};

FIXTURE_VARIANT_ADD(cannot, hugetlb)
{
	.kind = HUGETLB,
};

FIXTURE_SETUP(cannot)
{
	struct arena *arena = &self->arena;
	int flags = MAP_FIXED, fd = -1;
	size_t huge = 0;

	if (variant->kind == FILE_SHARED || variant->kind == ANON_SHARED)
		flags |= MAP_SHARED;
	else
		flags |= MAP_PRIVATE;
	if (variant->kind == HUGETLB) {
		huge = default_huge_page_size();
		if (huge && hugetlb_free_default_pages() < 1) {
			hugetlb_save_settings();
			self->restore = true;
			hugetlb_set_nr_default_pages(hugetlb_nr_default_pages() + 1);
		}
		if (!huge || hugetlb_free_default_pages() < 1)
			SKIP(return, "no free huge page");
	}
	self->nr = huge ? huge / psize() : 5;
	arena_init(arena, 8 * self->nr, huge);
	self->ptr = arena_at(arena, self->nr);
	self->to = arena_at(arena, 4 * self->nr);

	switch (variant->kind) {
	case WITH_CHILD:
	case ANON_SHARED:
		flags |= MAP_ANONYMOUS;
		break;
	case FILE_SHARED:
	case FILE_PRIVATE:
		fd = memfd_create("relocate", 0);
		ASSERT_GE(fd, 0);
		ASSERT_EQ(ftruncate(fd, PAGES(self->nr)), 0);
		break;
	case DEV_ZERO:
		fd = open("/dev/zero", O_RDWR);
		ASSERT_GE(fd, 0);
		break;
	case HUGETLB:
		flags |= MAP_ANONYMOUS | MAP_HUGETLB;
		break;
	}
	ASSERT_EQ(mmap(self->ptr, PAGES(self->nr), PROT_READ | PROT_WRITE,
		       flags, fd, 0), self->ptr);
	if (fd >= 0)
		close(fd);
	fill(self->ptr, self->nr, 1);
	if (variant->kind == WITH_CHILD)
		self->pid = share_with_child(arena, self->ptr, self->nr, 0, 1,
					     &self->step);
	ASSERT_EQ(set_mode(ALL), 0);
}

FIXTURE_TEARDOWN(cannot)
{
	arena_exit(&self->arena);
	if (self->restore)
		hugetlb_restore_settings();
}

TEST_F(cannot, moves_plainly)
{
	struct arena *arena = &self->arena;
	__u64 *entries = calloc(self->nr, sizeof(*entries));

	ASSERT_NE(entries, NULL);
	read_entries(arena, self->ptr, self->nr, entries);
	ASSERT_EQ(relocate(self->ptr, self->nr, 0, self->to), self->to);
	EXPECT_FALSE(find_vma_procmap(&arena->procmap, self->ptr));
	EXPECT_TRUE(is_one_vma(arena, self->to, self->nr));
	/* Shared pages need not be mapped yet where they were moved to. */
	EXPECT_TRUE(intact(self->to, self->nr, 1));
	EXPECT_TRUE(same_entries(arena, self->to, self->nr, entries));
	free(entries);

	/* And back. */
	ASSERT_EQ(relocate(self->to, self->nr, 0, self->ptr), self->ptr);
	EXPECT_TRUE(intact(self->ptr, self->nr, 1));
	if (self->pid) {
		tell_child(&self->step);
		EXPECT_TRUE(reap(self->pid));
	}
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--executed"))
		return executed(atoi(argv[2]));
	return test_harness_run(argc, argv);
}
