// SPDX-License-Identifier: GPL-2.0-only
/*
 * MREMAP_RELOCATE_ANON and MREMAP_MUST_RELOCATE_ANON: memory that others use
 * too, be it a process that was forked or somebody who has pinned the pages.
 *
 * A page may be re-homed if all that maps it, or refers to it from a swap
 * entry, lies in the range that is moved. Having been forked once is no reason
 * to refuse: the pages are counted, not the forks.
 */
#include "kselftest_harness.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "local_config.h_gen"
#ifdef LOCAL_CONFIG_HAVE_LIBURING
#include <liburing.h>
#endif
#include <linux/magic.h>
#include <mm/gup_test.h>
#include "mremap_relocate_util.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT		21
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE	23
#endif

#define NR_PAGES			16

/*
 * Everywhere:
 *
 *	..[AAAA]..[BBBB]....   ->   ..____..[BBBBAAAA]..
 */
FIXTURE(shared)
{
	struct arena arena;
	struct snapshot snap;
	struct step step, step2;
	char *left, *ptr, *to;
	__u64 entries[NR_PAGES];
};

FIXTURE_SETUP(shared)
{
	ASSERT_EQ(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	arena_init(&self->arena, 200, 0);
	self->left = arena_at(&self->arena, 100);
	self->ptr = arena_map(&self->arena, 10, NR_PAGES);
	self->to = arena_at(&self->arena, 104);
	step_init(&self->step);
	step_init(&self->step2);
	fill(self->ptr, NR_PAGES, 1);
	read_entries(&self->arena, self->ptr, NR_PAGES, self->entries);
}

FIXTURE_TEARDOWN(shared)
{
	arena_exit(&self->arena);
}

/* The neighbour: our own, even in a child. */
static void map_left(FIXTURE_DATA(shared) * self)
{
	fill(arena_map(&self->arena, 100, 4), 4, 9);
}

/* For page number 'first', which is the first one that is shared. */
static void expect_refused(struct __test_metadata *_metadata,
			   FIXTURE_DATA(shared) * self, size_t first)
{
	const int flags[] = { MUST_RELOCATE_ANON, RELOCATE_ANON | MUST_RELOCATE_ANON };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		snapshot_take(&self->snap, &self->arena, self->ptr, NR_PAGES);
		EXPECT_TRUE(is_refused(&self->snap, self->ptr, NR_PAGES,
				       flags[i], self->to));
		EXPECT_TRUE(refused_as("shared_page",
				       self->ptr + PAGES(first)));
	}
}

/* Best effort ends in an ordinary move. */
static void expect_plain(struct __test_metadata *_metadata,
			 FIXTURE_DATA(shared) * self)
{
	__u64 entries[NR_PAGES];

	read_entries(&self->arena, self->ptr, NR_PAGES, entries);
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, RELOCATE_ANON, self->to), self->to);
	EXPECT_TRUE(same_entries(&self->arena, self->to, NR_PAGES, entries));
	EXPECT_TRUE(is_one_vma(&self->arena, self->left, 4));
	EXPECT_TRUE(is_one_vma(&self->arena, self->to, NR_PAGES));
}

static void expect_relocated(struct __test_metadata *_metadata,
			     FIXTURE_DATA(shared) * self, char *from)
{
	__u64 entries[NR_PAGES];

	read_entries(&self->arena, from, NR_PAGES, entries);
	ASSERT_EQ(relocate(from, NR_PAGES, MUST_RELOCATE_ANON, self->to), self->to);
	EXPECT_TRUE(same_entries(&self->arena, self->to, NR_PAGES, entries));
	EXPECT_TRUE(is_one_vma(&self->arena, self->left, 4 + NR_PAGES));
}

/* Nobody but us has these pages: can the kernel find them? */
#define EXPECT_HEALTHY(_ptr, _seed) do {					\
	EXPECT_TRUE(healthy(&self->arena, _ptr, NR_PAGES, _seed));			\
	EXPECT_TRUE(healthy(&self->arena, self->left, 4, 9));			\
} while (0)

/* The pages are the child's too, first when it lives, then when it is gone. */
TEST_F(shared, with_child)
{
	pid_t pid;

	map_left(self);
	pid = fork_child(&self->arena);
	if (!pid) {
		wait_for_parent(&self->step);
		EXPECT_TRUE(same_entries(&self->arena, self->ptr, NR_PAGES,
					 self->entries));
		EXPECT_TRUE(intact(self->ptr, NR_PAGES, 1));
		_exit(_metadata->exit_code);
	}

	expect_refused(_metadata, self, 0);
	expect_plain(_metadata, self);
	EXPECT_TRUE(intact(self->to, NR_PAGES, 1));
	tell_child(&self->step);
	EXPECT_TRUE(reap(pid));

	/* Plainly moved, and alone: now it can be put right. */
	EXPECT_HEALTHY(self->to, 1);
	ASSERT_EQ(relocate(self->to, NR_PAGES, 0, self->ptr), self->ptr);
	expect_relocated(_metadata, self, self->ptr);
	EXPECT_HEALTHY(self->to, 1);
}

/* After the fallback, pages that two processes map are found in both. */
TEST_F(shared, both_are_found)
{
	int node;
	pid_t pid;

	if (nr_nodes() < 2)
		SKIP(return, "no second node to migrate to");

	map_left(self);
	pid = fork_child(&self->arena);
	if (!pid) {
		__u64 entries[NR_PAGES];
		int i;

		wait_for_parent(&self->step);
		read_entries(&self->arena, self->ptr, NR_PAGES, entries);
		for (i = 0; i < NR_PAGES; i++)
			EXPECT_NE(entries[i], self->entries[i]);
		EXPECT_TRUE(intact(self->ptr, NR_PAGES, 1));
		tell_parent(&self->step);
		/* Written to, it is the child's own, and at home there. */
		fill(self->ptr, NR_PAGES, 2);
		EXPECT_TRUE(healthy(&self->arena, self->ptr, NR_PAGES, 2));
		_exit(_metadata->exit_code);
	}

	expect_plain(_metadata, self);
	node = !node_of(self->to);
	EXPECT_EQ(migrate_shared(self->to, NR_PAGES, node), NR_PAGES);
	EXPECT_TRUE(intact(self->to, NR_PAGES, 1));
	tell_child(&self->step);
	wait_for_child(&self->step);
	EXPECT_TRUE(reap(pid));
	EXPECT_HEALTHY(self->to, 1);
}

/* Written again since the fork: the parent has copies that nobody else has. */
TEST_F(shared, parent_wrote)
{
	pid_t pid;

	pid = fork_child(&self->arena);
	if (!pid) {
		wait_for_parent(&self->step);
		/* The originals are the child's alone by now. */
		EXPECT_TRUE(same_entries(&self->arena, self->ptr, NR_PAGES,
					 self->entries));
		EXPECT_TRUE(healthy(&self->arena, self->ptr, NR_PAGES, 1));
		_exit(_metadata->exit_code);
	}

	map_left(self);
	fill(self->ptr, NR_PAGES, 2);
	expect_relocated(_metadata, self, self->ptr);
	EXPECT_HEALTHY(self->to, 2);
	tell_child(&self->step);
	EXPECT_TRUE(reap(pid));
	EXPECT_HEALTHY(self->to, 2);
}

/*
 * The documentation has this recipe for a program that is refused: get copies of
 * the shared pages, and try again. It writes no byte.
 */
TEST_F(shared, populate_write)
{
	pid_t pid;

	map_left(self);
	pid = fork_child(&self->arena);
	if (!pid) {
		wait_for_parent(&self->step);
		EXPECT_TRUE(same_entries(&self->arena, self->ptr, NR_PAGES,
					 self->entries));
		EXPECT_TRUE(intact(self->ptr, NR_PAGES, 1));
		_exit(_metadata->exit_code);
	}

	/* One of them is ours already, and one has been swapped out. */
	fill_from(self->ptr + PAGES(1), 1, 1, 1);
	if (can_swap())
		pageout(&self->arena, self->ptr + PAGES(2), 1, 1);
	expect_refused(_metadata, self, 0);
	ASSERT_EQ(madvise(self->ptr, PAGES(NR_PAGES), MADV_POPULATE_WRITE), 0);
	expect_relocated(_metadata, self, self->ptr);
	EXPECT_TRUE(intact(self->to, NR_PAGES, 1));
	tell_child(&self->step);
	EXPECT_TRUE(reap(pid));
	EXPECT_HEALTHY(self->to, 1);
}

/* The same from the child's side: it inherited what it now moves. */
TEST_F(shared, child_has_the_originals)
{
	pid_t pid;

	pid = fork_child(&self->arena);
	if (!pid) {
		map_left(self);
		expect_refused(_metadata, self, 0);
		tell_parent(&self->step);
		wait_for_parent(&self->step);
		expect_relocated(_metadata, self, self->ptr);
		EXPECT_TRUE(same_entries(&self->arena, self->to, NR_PAGES,
					 self->entries));
		EXPECT_HEALTHY(self->to, 1);
		_exit(_metadata->exit_code);
	}

	wait_for_child(&self->step);
	EXPECT_TRUE(intact(self->ptr, NR_PAGES, 1));
	fill(self->ptr, NR_PAGES, 2);
	tell_child(&self->step);
	EXPECT_TRUE(reap(pid));
	EXPECT_TRUE(healthy(&self->arena, self->ptr, NR_PAGES, 2));
}

TEST_F(shared, child_wrote)
{
	pid_t pid;

	pid = fork_child(&self->arena);
	if (!pid) {
		map_left(self);
		fill(self->ptr, NR_PAGES, 2);
		expect_relocated(_metadata, self, self->ptr);
		EXPECT_HEALTHY(self->to, 2);
		tell_parent(&self->step);
		wait_for_parent(&self->step);
		EXPECT_HEALTHY(self->to, 2);
		_exit(_metadata->exit_code);
	}

	wait_for_child(&self->step);
	/* The child has what it needs, so the rest is ours. */
	map_left(self);
	expect_relocated(_metadata, self, self->ptr);
	EXPECT_HEALTHY(self->to, 1);
	tell_child(&self->step);
	EXPECT_TRUE(reap(pid));
}

/* In a child, best effort that finds shared pages is an ordinary move too. */
TEST_F(shared, child_falls_back)
{
	pid_t pid;

	pid = fork_child(&self->arena);
	if (!pid) {
		map_left(self);
		expect_plain(_metadata, self);
		EXPECT_TRUE(intact(self->to, NR_PAGES, 1));
		tell_parent(&self->step);
		wait_for_parent(&self->step);
		EXPECT_HEALTHY(self->to, 1);
		_exit(_metadata->exit_code);
	}

	wait_for_child(&self->step);
	EXPECT_TRUE(same_entries(&self->arena, self->ptr, NR_PAGES, self->entries));
	fill(self->ptr, NR_PAGES, 2);
	tell_child(&self->step);
	EXPECT_TRUE(reap(pid));
	EXPECT_TRUE(healthy(&self->arena, self->ptr, NR_PAGES, 2));
}

/* One page of sixteen is still shared: all or nothing. */
TEST_F(shared, one_page)
{
	const size_t which[] = { 0, NR_PAGES / 2, NR_PAGES - 1 };
	size_t i;

	map_left(self);
	for (i = 0; i < ARRAY_SIZE(which); i++) {
		pid_t pid = fork_child(&self->arena);
		size_t page;

		if (!pid) {
			wait_for_parent(&self->step);
			_exit(!intact(self->ptr, NR_PAGES, i ? 2 : 1));
		}

		for (page = 0; page < NR_PAGES; page++) {
			if (page != which[i])
				fill_from(self->ptr + PAGES(page), 1, 2, page);
		}
		/* Not a change of its bytes, as far as the child can see. */
		expect_refused(_metadata, self, which[i]);
		expect_plain(_metadata, self);
		tell_child(&self->step);
		EXPECT_TRUE(reap(pid));

		fill_from(self->to + PAGES(which[i]), 1, 2, which[i]);
		EXPECT_HEALTHY(self->to, 2);
		ASSERT_EQ(relocate(self->to, NR_PAGES, MUST_RELOCATE_ANON,
				   self->ptr), self->ptr);
		EXPECT_TRUE(is_one_vma(&self->arena, self->ptr, NR_PAGES));
		EXPECT_HEALTHY(self->ptr, 2);
	}
}

TEST_F(shared, with_grandchild)
{
	pid_t pid;

	map_left(self);
	pid = fork_child(&self->arena);
	if (!pid) {
		/* PR_SET_PDEATHSIG would end the grandchild with this process. */
		if (!fork()) {
			arena_reopen(&self->arena);
			tell_parent(&self->step);
			wait_for_parent(&self->step);
			EXPECT_TRUE(intact(self->ptr, NR_PAGES, 1));
			fill(self->ptr, NR_PAGES, 2);
			map_left(self);
			expect_relocated(_metadata, self, self->ptr);
			EXPECT_HEALTHY(self->to, 2);
			/* Nobody waits for this process, only for its word. */
			if (!_metadata->exit_code)
				tell_parent(&self->step);
		}
		_exit(_metadata->exit_code);
	}
	EXPECT_TRUE(reap(pid));

	/* The child is gone, the grandchild is not. */
	wait_for_child(&self->step);
	expect_refused(_metadata, self, 0);
	tell_child(&self->step);
	wait_for_child(&self->step);

	/* It has its own by now. */
	expect_relocated(_metadata, self, self->ptr);
	EXPECT_HEALTHY(self->to, 1);
}

/* A chain of forks, each process with pages of its own, all gone at the end. */
TEST_F(shared, many_children)
{
	int i;

	map_left(self);
	for (i = 0; i < 8; i++) {
		pid_t pid = fork_child(&self->arena);

		if (!pid) {
			fill(self->ptr, NR_PAGES / 2, i);
			_exit(_metadata->exit_code);
		}
		EXPECT_TRUE(reap(pid));
		fill_from(self->ptr + PAGES(i), 1, 1, i);
	}
	expect_relocated(_metadata, self, self->ptr);
	EXPECT_HEALTHY(self->to, 1);
}

/* A child that runs another program lives on, but without our pages. */
TEST_F(shared, child_execs)
{
	int hold[2], gone[2];
	char byte;
	pid_t pid;

	map_left(self);
	ASSERT_EQ(pipe(hold), 0);
	ASSERT_EQ(pipe2(gone, O_CLOEXEC), 0);
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		close(hold[1]);
		dup2(hold[0], STDIN_FILENO);
		execlp("cat", "cat", NULL);
		_exit(1);
	}
	close(hold[0]);
	close(gone[1]);

	/* The end of the pipe is closed after the old memory was given up. */
	ASSERT_EQ(read(gone[0], &byte, 1), 0);
	expect_relocated(_metadata, self, self->ptr);
	EXPECT_HEALTHY(self->to, 1);
	close(hold[1]);
	EXPECT_TRUE(reap(pid));
}

/* Swap entries have counts of their own. */
TEST_F(shared, swapped_out)
{
	pid_t pid;

	if (!can_swap())
		SKIP(return, "no swap");

	map_left(self);
	ASSERT_EQ(pageout(&self->arena, self->ptr, NR_PAGES, NR_PAGES), NR_PAGES);
	pid = fork_child(&self->arena);
	if (!pid) {
		wait_for_parent(&self->step);
		EXPECT_TRUE(intact(self->ptr, NR_PAGES, 1));
		_exit(_metadata->exit_code);
	}

	expect_refused(_metadata, self, 0);
	expect_plain(_metadata, self);
	EXPECT_EQ(nr_swapped(&self->arena, self->to, NR_PAGES), NR_PAGES);
	tell_child(&self->step);
	EXPECT_TRUE(reap(pid));

	ASSERT_EQ(relocate(self->to, NR_PAGES, MUST_RELOCATE_ANON, self->ptr),
		  self->ptr);
	expect_relocated(_metadata, self, self->ptr);
	EXPECT_HEALTHY(self->to, 1);
}

/* A swap entry here, the page in the swap cache and mapped by the child. */
TEST_F(shared, swapped_in_by_child)
{
	pid_t pid;

	if (!can_swap())
		SKIP(return, "no swap");

	map_left(self);
	ASSERT_EQ(pageout(&self->arena, self->ptr, NR_PAGES, NR_PAGES), NR_PAGES);
	pid = fork_child(&self->arena);
	if (!pid) {
		EXPECT_TRUE(intact(self->ptr, NR_PAGES, 1));
		tell_parent(&self->step);
		wait_for_parent(&self->step);
		EXPECT_TRUE(intact(self->ptr, NR_PAGES, 1));
		_exit(_metadata->exit_code);
	}

	wait_for_child(&self->step);
	expect_refused(_metadata, self, 0);
	tell_child(&self->step);
	EXPECT_TRUE(reap(pid));

	/* Now it is in the swap cache, and nobody's but ours. */
	expect_relocated(_metadata, self, self->ptr);
	EXPECT_HEALTHY(self->to, 1);
}

/* The child wrote what it swapped in: the swap entries are ours alone. */
TEST_F(shared, child_wrote_what_was_swapped_out)
{
	pid_t pid;

	if (!can_swap())
		SKIP(return, "no swap");

	ASSERT_EQ(pageout(&self->arena, self->ptr, NR_PAGES, NR_PAGES), NR_PAGES);
	pid = fork_child(&self->arena);
	if (!pid) {
		fill(self->ptr, NR_PAGES, 2);
		tell_parent(&self->step);
		wait_for_parent(&self->step);
		EXPECT_TRUE(healthy(&self->arena, self->ptr, NR_PAGES, 2));
		_exit(_metadata->exit_code);
	}

	wait_for_child(&self->step);
	map_left(self);
	expect_relocated(_metadata, self, self->ptr);
	EXPECT_HEALTHY(self->to, 1);
	tell_child(&self->step);
	EXPECT_TRUE(reap(pid));
}

/* Fork after the move: what was re-homed is inherited as any other memory is. */
TEST_F(shared, fork_afterwards)
{
	pid_t pid;

	map_left(self);
	expect_relocated(_metadata, self, self->ptr);
	pid = fork_child(&self->arena);
	if (!pid) {
		EXPECT_TRUE(intact(self->to, NR_PAGES, 1));
		EXPECT_TRUE(intact(self->left, 4, 9));
		tell_parent(&self->step);
		wait_for_parent(&self->step);
		EXPECT_TRUE(intact(self->to, NR_PAGES, 1));
		fill(self->to, NR_PAGES, 2);
		fill(self->left, 4, 9);
		EXPECT_HEALTHY(self->to, 2);
		_exit(_metadata->exit_code);
	}

	wait_for_child(&self->step);
	if (nr_nodes() > 1)
		EXPECT_EQ(migrate_shared(self->to, NR_PAGES,
					 !node_of(self->to)), NR_PAGES);
	EXPECT_TRUE(intact(self->to, NR_PAGES, 1));
	tell_child(&self->step);
	EXPECT_TRUE(reap(pid));
	EXPECT_HEALTHY(self->to, 1);
}

/*
 * Pins. Whoever holds a pin knows the page and not the address, so a move is
 * none of its business: it must go on to see, and to write, what the process
 * has at the new place, and it is no reason to refuse the move.
 */
FIXTURE(pinned)
{
	struct arena arena;
	char *left, *ptr, *to;
	__u64 entries[NR_PAGES];
	int fd;
};

FIXTURE_VARIANT(pinned)
{
	int flags;
};

FIXTURE_VARIANT_ADD(pinned, relocate)
{
	.flags = RELOCATE_ANON,
};

FIXTURE_VARIANT_ADD(pinned, must)
{
	.flags = MUST_RELOCATE_ANON,
};

FIXTURE_SETUP(pinned)
{
	ASSERT_EQ(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	arena_init(&self->arena, 1100, 0);
	self->left = arena_map(&self->arena, 100, 4);
	self->ptr = arena_map(&self->arena, 10, NR_PAGES);
	self->to = arena_at(&self->arena, 104);
	self->fd = open("/sys/kernel/debug/gup_test", O_RDWR);
	fill(self->left, 4, 9);
	fill(self->ptr, NR_PAGES, 1);
}

FIXTURE_TEARDOWN(pinned)
{
	if (self->fd >= 0)
		close(self->fd);
	arena_exit(&self->arena);
}

static void move_pinned(struct __test_metadata *_metadata,
			FIXTURE_DATA(pinned) * self, int flags)
{
	struct arena *arena = &self->arena;

	read_entries(arena, self->ptr, NR_PAGES, self->entries);
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, flags, self->to), self->to);
	EXPECT_TRUE(same_entries(arena, self->to, NR_PAGES, self->entries));
	EXPECT_TRUE(is_one_vma(arena, self->left, 4 + NR_PAGES));
}

static void test_longterm(struct __test_metadata *_metadata,
			  FIXTURE_DATA(pinned) * self, int flags, int pin_flags)
{
	struct pin_longterm_test args = {
		.addr = (unsigned long)self->ptr,
		.size = PAGES(NR_PAGES),
		.flags = pin_flags,
	};
	char *seen = malloc(PAGES(NR_PAGES));
	__u64 seen_addr = (unsigned long)seen;

	ASSERT_NE(seen, NULL);
	ASSERT_EQ(ioctl(self->fd, PIN_LONGTERM_TEST_START, &args), 0);
	move_pinned(_metadata, self, flags);

	/* The pin sees what is written at the new place. */
	fill(self->to, NR_PAGES, 2);
	EXPECT_TRUE(same_entries(&self->arena, self->to, NR_PAGES, self->entries));
	ASSERT_EQ(ioctl(self->fd, PIN_LONGTERM_TEST_READ, &seen_addr), 0);
	EXPECT_TRUE(intact(seen, NR_PAGES, 2));
	ASSERT_EQ(ioctl(self->fd, PIN_LONGTERM_TEST_STOP), 0);

	EXPECT_TRUE(healthy(&self->arena, self->to, NR_PAGES, 2));
	EXPECT_TRUE(healthy(&self->arena, self->left, 4, 9));
	free(seen);
}

TEST_F(pinned, longterm)
{
	if (self->fd < 0)
		SKIP(return, "no /sys/kernel/debug/gup_test");
	test_longterm(_metadata, self, variant->flags,
		      PIN_LONGTERM_TEST_FLAG_USE_WRITE);
}

TEST_F(pinned, longterm_fast)
{
	if (self->fd < 0)
		SKIP(return, "no /sys/kernel/debug/gup_test");
	test_longterm(_metadata, self, variant->flags,
		      PIN_LONGTERM_TEST_FLAG_USE_WRITE |
		      PIN_LONGTERM_TEST_FLAG_USE_FAST);
}

TEST_F(pinned, longterm_read_only)
{
	if (self->fd < 0)
		SKIP(return, "no /sys/kernel/debug/gup_test");
	test_longterm(_metadata, self, variant->flags, 0);
}

/* A pipe holds references to the pages, which are not even pins. */
TEST_F(pinned, vmsplice)
{
	struct iovec vec = { .iov_base = self->ptr, .iov_len = PAGES(NR_PAGES) };
	char *seen = malloc(PAGES(NR_PAGES));
	size_t len = 0;
	int fds[2];

	ASSERT_NE(seen, NULL);
	ASSERT_EQ(pipe(fds), 0);
	ASSERT_GE(fcntl(fds[1], F_SETPIPE_SZ, PAGES(2 * NR_PAGES)),
		  (int)PAGES(NR_PAGES));
	ASSERT_EQ(vmsplice(fds[1], &vec, 1, 0), (ssize_t)PAGES(NR_PAGES));
	move_pinned(_metadata, self, variant->flags);
	fill(self->to, NR_PAGES, 2);
	while (len < PAGES(NR_PAGES)) {
		ssize_t ret = read(fds[0], seen + len, PAGES(NR_PAGES) - len);

		ASSERT_GT(ret, 0);
		len += ret;
	}
	EXPECT_TRUE(intact(seen, NR_PAGES, 2));
	close(fds[0]);
	close(fds[1]);
	EXPECT_TRUE(healthy(&self->arena, self->to, NR_PAGES, 2));
	EXPECT_TRUE(healthy(&self->arena, self->left, 4, 9));
	free(seen);
}

/* GUP-fast takes and drops pins all the time, without any lock that we hold. */
struct gup_loop {
	pthread_t thread;
	char *ptr[2];
	unsigned long rounds;
	bool stop;
	int fd;
};

static void *gup_loop(void *arg)
{
	struct gup_loop *loop = arg;
	cpu_set_t set;

	memset(&set, 0xff, sizeof(set));
	sched_setaffinity(0, sizeof(set), &set);
	while (!__atomic_load_n(&loop->stop, __ATOMIC_ACQUIRE)) {
		struct gup_test args = {
			.addr = (unsigned long)loop->ptr[loop->rounds & 1],
			.size = PAGES(NR_PAGES),
			.nr_pages_per_call = NR_PAGES,
			.gup_flags = 1,			/* FOLL_WRITE */
		};

		/* Where nothing is mapped, there is nothing to be pinned. */
		ioctl(loop->fd, PIN_FAST_BENCHMARK, &args);
		__atomic_fetch_add(&loop->rounds, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

TEST_F(pinned, gup_fast_in_a_loop)
{
	struct gup_loop loop = {
		.ptr = { self->ptr, self->to },
		.fd = self->fd,
	};
	int i;

	if (self->fd < 0)
		SKIP(return, "no /sys/kernel/debug/gup_test");
	ASSERT_EQ(pthread_create(&loop.thread, NULL, gup_loop, &loop), 0);
	for (i = 0; i < 100; i++) {
		while (__atomic_load_n(&loop.rounds, __ATOMIC_ACQUIRE) < (unsigned long)i)
			sched_yield();
		ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags,
				   self->to), self->to);
		ASSERT_TRUE(is_one_vma(&self->arena, self->left, 4 + NR_PAGES));
		/* Look at each move: the next would put right what it left. */
		if (nr_nodes() > 1)
			ASSERT_EQ(migrate(self->to, NR_PAGES, i & 1), NR_PAGES);
		ASSERT_EQ(relocate(self->to, NR_PAGES, variant->flags,
				   self->ptr), self->ptr);
	}
	__atomic_store_n(&loop.stop, true, __ATOMIC_RELEASE);
	pthread_join(loop.thread, NULL);
	TH_LOG("%lu rounds of pins during 200 moves", loop.rounds);

	EXPECT_TRUE(healthy(&self->arena, self->ptr, NR_PAGES, 1));
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, MUST_RELOCATE_ANON, self->to),
		  self->to);
	EXPECT_TRUE(is_one_vma(&self->arena, self->left, 4 + NR_PAGES));
	EXPECT_TRUE(healthy(&self->arena, self->to, NR_PAGES, 1));
	EXPECT_TRUE(healthy(&self->arena, self->left, 4, 9));
}

/*
 * Direct I/O goes straight to the pages. tmpfs takes O_DIRECT too, but copies.
 * Returns -1 if the current directory is not on a file system that has it.
 */
static int open_direct(void)
{
	int file = open(".", O_TMPFILE | O_RDWR | O_DIRECT, 0600);
	struct statfs fs;

	if (file < 0)
		return -1;
	if (!fstatfs(file, &fs) && fs.f_type != TMPFS_MAGIC)
		return file;
	close(file);
	return -1;
}

/* Reads when told to. */
struct reader {
	pthread_t thread;
	char *ptr;
	int file;
	off_t offset;
	ssize_t ret;
	int told, started, done;	/* Numbers of reads, -1 for the end. */
};

static void wait_for_read(int *number, int want)
{
	while (__atomic_load_n(number, __ATOMIC_ACQUIRE) == want - 1)
		sched_yield();
}

static void *read_thread(void *arg)
{
	struct reader *reader = arg;
	cpu_set_t set;
	int number;

	memset(&set, 0xff, sizeof(set));
	sched_setaffinity(0, sizeof(set), &set);
	for (number = 1;; number++) {
		wait_for_read(&reader->told, number);
		if (__atomic_load_n(&reader->told, __ATOMIC_ACQUIRE) < 0)
			return NULL;
		__atomic_store_n(&reader->started, number, __ATOMIC_RELEASE);
		reader->ret = pread(reader->file, reader->ptr, PAGES(NR_PAGES),
				    reader->offset);
		__atomic_store_n(&reader->done, number, __ATOMIC_RELEASE);
	}
}

/*
 * Direct reads pin the pages of the old place, and dirty and unpin them when
 * the device is done, while they are moved. One that comes too late fails, and
 * may have filled some pages.
 */
TEST_F(pinned, direct_read)
{
	struct reader reader = { .file = open_direct() };
	char *data[2], *from = self->ptr, *to = self->to;
	int round, full = 0;
	size_t page;

	if (reader.file < 0)
		SKIP(return, "no direct I/O here");
	for (round = 0; round < 2; round++) {
		data[round] = arena_map(&self->arena, 140 + round * (NR_PAGES + 4), NR_PAGES);
		fill(data[round], NR_PAGES, 2 + round);
		ASSERT_EQ(pwrite(reader.file, data[round], PAGES(NR_PAGES),
				 round * PAGES(NR_PAGES)), (ssize_t)PAGES(NR_PAGES));
	}
	memcpy(from, data[1], PAGES(NR_PAGES));
	ASSERT_EQ(pthread_create(&reader.thread, NULL, read_thread, &reader), 0);

	for (round = 1; round <= 1000 && full < 50; round++) {
		char *want = data[!(round & 1)], *old = data[round & 1], *tmp;

		reader.ptr = from;
		reader.offset = want == data[1] ? PAGES(NR_PAGES) : 0;
		__atomic_store_n(&reader.told, round, __ATOMIC_RELEASE);
		if (round & 2)
			wait_for_read(&reader.started, round);
		ASSERT_EQ(relocate(from, NR_PAGES, variant->flags, to), to);
		wait_for_read(&reader.done, round);

		if (reader.ret == (ssize_t)PAGES(NR_PAGES)) {
			ASSERT_EQ(memcmp(to, want, PAGES(NR_PAGES)), 0);
			full++;
		}
		for (page = 0; page < NR_PAGES; page++) {
			ASSERT_TRUE(!memcmp(to + PAGES(page), want + PAGES(page),
					    psize()) ||
				    !memcmp(to + PAGES(page), old + PAGES(page),
					    psize()));
		}
		memcpy(to, want, PAGES(NR_PAGES));
		tmp = from;
		from = to;
		to = tmp;
	}
	__atomic_store_n(&reader.told, -1, __ATOMIC_RELEASE);
	pthread_join(reader.thread, NULL);
	TH_LOG("%d of %d reads were complete", full, round - 1);
	if (full < 50)
		SKIP(return, "most moves were faster than the read");

	if (from == self->ptr)
		ASSERT_EQ(relocate(from, NR_PAGES, MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(is_one_vma(&self->arena, self->left, 4 + NR_PAGES));
	EXPECT_TRUE(healthy(&self->arena, self->to, NR_PAGES,
			    2 + !((round - 1) & 1)));
	EXPECT_TRUE(healthy(&self->arena, self->left, 4, 9));
	close(reader.file);
}

#ifdef LOCAL_CONFIG_HAVE_LIBURING
static int one_request(struct io_uring *ring)
{
	struct io_uring_cqe *cqe;
	int ret;

	if (io_uring_submit(ring) != 1 || io_uring_wait_cqe(ring, &cqe))
		return -EIO;
	ret = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return ret;
}

/* A registered buffer is pinned for as long as it is registered. */
TEST_F(pinned, io_uring_buffer)
{
	struct iovec vec = { .iov_base = self->ptr, .iov_len = PAGES(NR_PAGES) };
	char *data = malloc(PAGES(NR_PAGES));
	struct io_uring ring;
	int file;

	ASSERT_NE(data, NULL);
	file = memfd_create("data", 0);
	ASSERT_GE(file, 0);
	fill(data, NR_PAGES, 3);
	ASSERT_EQ(pwrite(file, data, PAGES(NR_PAGES), 0), (ssize_t)PAGES(NR_PAGES));
	if (io_uring_queue_init(1, &ring, 0))
		SKIP(return, "no io_uring");
	if (io_uring_register_buffers(&ring, &vec, 1))
		SKIP(return, "cannot register a buffer");

	move_pinned(_metadata, self, variant->flags);

	/* The ring reads into the pages that it was given, wherever they are. */
	io_uring_prep_read_fixed(io_uring_get_sqe(&ring), file, self->ptr,
				 PAGES(NR_PAGES), 0, 0);
	ASSERT_EQ(one_request(&ring), (int)PAGES(NR_PAGES));
	EXPECT_TRUE(intact(self->to, NR_PAGES, 3));

	/* And writes from them. */
	fill(self->to, NR_PAGES, 4);
	io_uring_prep_write_fixed(io_uring_get_sqe(&ring), file, self->ptr,
				  PAGES(NR_PAGES), 0, 0);
	ASSERT_EQ(one_request(&ring), (int)PAGES(NR_PAGES));
	ASSERT_EQ(pread(file, data, PAGES(NR_PAGES), 0), (ssize_t)PAGES(NR_PAGES));
	EXPECT_TRUE(intact(data, NR_PAGES, 4));

	ASSERT_EQ(io_uring_unregister_buffers(&ring), 0);
	io_uring_queue_exit(&ring);
	EXPECT_TRUE(healthy(&self->arena, self->to, NR_PAGES, 4));
	EXPECT_TRUE(healthy(&self->arena, self->left, 4, 9));
	free(data);
	close(file);
}

/* Requests of one page each, so many that some take longer than the move. */
#define NR_REQUESTS	256

static void submit_requests(struct __test_metadata *_metadata,
			    struct io_uring *ring, int file, char *ptr,
			    bool write)
{
	size_t i;

	for (i = 0; i < NR_REQUESTS; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

		ASSERT_NE(sqe, NULL);
		if (write)
			io_uring_prep_write_fixed(sqe, file, ptr + PAGES(i),
						  psize(), PAGES(i), 0);
		else
			io_uring_prep_read_fixed(sqe, file, ptr + PAGES(i),
						 psize(), PAGES(i), 0);
	}
	ASSERT_EQ(io_uring_submit(ring), NR_REQUESTS);
}

static void reap_requests(struct __test_metadata *_metadata,
			  struct io_uring *ring, int nr, int want)
{
	struct io_uring_cqe *cqe;

	for (; nr; nr--) {
		ASSERT_EQ(io_uring_wait_cqe(ring, &cqe), 0);
		ASSERT_EQ(cqe->res, want);
		io_uring_cqe_seen(ring, cqe);
	}
}

/* How many were on their way when the move began, and when it was over? */
struct in_flight {
	size_t began, over;
};

static void move_in_flight(struct __test_metadata *_metadata,
			   struct io_uring *ring, char *from, int flags,
			   char *to, struct in_flight *in_flight)
{
	unsigned int began = io_uring_cq_ready(ring);
	void *ret = relocate(from, NR_REQUESTS, flags, to);
	unsigned int over = io_uring_cq_ready(ring);

	ASSERT_EQ(ret, to);
	in_flight->began += NR_REQUESTS - began;
	in_flight->over += NR_REQUESTS - over;
	reap_requests(_metadata, ring, NR_REQUESTS, psize());
}

/* The device reads from the pages, or writes to them, while they are moved. */
TEST_F(pinned, io_uring_direct)
{
	const size_t len = PAGES(NR_REQUESTS);
	char *data = arena_map(&self->arena, 200, NR_REQUESTS);
	char *from = arena_map(&self->arena, 500, NR_REQUESTS);
	char *left = arena_map(&self->arena, 796, 4);
	char *to = arena_at(&self->arena, 800);
	struct iovec vec = { .iov_base = from, .iov_len = len };
	struct in_flight reads = {}, writes = {};
	int file = open_direct();
	struct io_uring ring;
	int round;

	if (file < 0)
		SKIP(return, "no direct I/O here");
	if (io_uring_queue_init(NR_REQUESTS, &ring, 0))
		SKIP(return, "no io_uring");
	if (io_uring_register_buffers(&ring, &vec, 1))
		SKIP(return, "cannot register a buffer");
	fill(left, 4, 9);

	for (round = 0; round < 50 && (!reads.over || !writes.over); round++) {
		fill(data, NR_REQUESTS, 10 + round);
		ASSERT_EQ(pwrite(file, data, len, 0), (ssize_t)len);
		submit_requests(_metadata, &ring, file, from, false);
		move_in_flight(_metadata, &ring, from, variant->flags, to, &reads);
		ASSERT_TRUE(is_one_vma(&self->arena, left, 4 + NR_REQUESTS));
		ASSERT_TRUE(intact(to, NR_REQUESTS, 10 + round));

		/* The buffer keeps the address with which it was registered. */
		fill(to, NR_REQUESTS, 100 + round);
		submit_requests(_metadata, &ring, file, from, true);
		move_in_flight(_metadata, &ring, to, variant->flags, from, &writes);
		ASSERT_EQ(pread(file, data, len, 0), (ssize_t)len);
		ASSERT_TRUE(intact(data, NR_REQUESTS, 100 + round));
		ASSERT_TRUE(intact(from, NR_REQUESTS, 100 + round));
	}
	TH_LOG("on their way in %d rounds: %zu reads and %zu writes, after the move %zu and %zu",
	       round, reads.began, writes.began, reads.over, writes.over);
	if (!reads.began || !writes.began)
		SKIP(return, "every request was done before the move");

	ASSERT_EQ(io_uring_unregister_buffers(&ring), 0);
	io_uring_queue_exit(&ring);
	ASSERT_EQ(relocate(from, NR_REQUESTS, variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(&self->arena, left, 4 + NR_REQUESTS));
	EXPECT_TRUE(healthy(&self->arena, to, NR_REQUESTS, 100 + round - 1));
	EXPECT_TRUE(healthy(&self->arena, left, 4, 9));
	close(file);
}

/* Submitted before the move, but sure to start after it, by a linked request. */
TEST_F(pinned, io_uring_linked)
{
	struct iovec vec = { .iov_base = self->ptr, .iov_len = PAGES(NR_PAGES) };
	char *data = arena_map(&self->arena, 150, NR_PAGES);
	int file = open_direct();
	struct io_uring_sqe *sqe;
	struct io_uring ring;
	int fds[2], i;
	char byte;

	if (file < 0)
		SKIP(return, "no direct I/O here");
	if (io_uring_queue_init(NR_REQUESTS, &ring, 0))
		SKIP(return, "no io_uring");
	if (io_uring_register_buffers(&ring, &vec, 1))
		SKIP(return, "cannot register a buffer");
	ASSERT_EQ(pipe(fds), 0);
	fill(data, NR_PAGES, 3);
	ASSERT_EQ(pwrite(file, data, PAGES(NR_PAGES), 0), (ssize_t)PAGES(NR_PAGES));

	/* One page each, the odd ones are written and the even ones read. */
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_read(sqe, fds[0], &byte, 1, 0);
	for (i = 0; i < NR_PAGES; i++) {
		sqe->flags |= IOSQE_IO_LINK;
		sqe = io_uring_get_sqe(&ring);
		if (i & 1)
			io_uring_prep_write_fixed(sqe, file, self->ptr + PAGES(i),
						  psize(), PAGES(i), 0);
		else
			io_uring_prep_read_fixed(sqe, file, self->ptr + PAGES(i),
						 psize(), PAGES(i), 0);
	}
	ASSERT_EQ(io_uring_submit(&ring), NR_PAGES + 1);
	move_pinned(_metadata, self, variant->flags);
	EXPECT_EQ(io_uring_cq_ready(&ring), 0);
	fill(self->to, NR_PAGES, 4);
	ASSERT_EQ(write(fds[1], "x", 1), 1);
	reap_requests(_metadata, &ring, 1, 1);
	reap_requests(_metadata, &ring, NR_PAGES, psize());

	ASSERT_EQ(pread(file, data, PAGES(NR_PAGES), 0), (ssize_t)PAGES(NR_PAGES));
	for (i = 0; i < NR_PAGES; i++) {
		const unsigned long seed = i & 1 ? 4 : 3;

		EXPECT_TRUE(intact_from(self->to + PAGES(i), 1, seed, i));
		EXPECT_TRUE(intact_from(data + PAGES(i), 1, seed, i));
	}
	ASSERT_EQ(io_uring_unregister_buffers(&ring), 0);
	io_uring_queue_exit(&ring);
	fill(self->to, NR_PAGES, 5);
	EXPECT_TRUE(healthy(&self->arena, self->to, NR_PAGES, 5));
	EXPECT_TRUE(healthy(&self->arena, self->left, 4, 9));
	close(file);
	close(fds[0]);
	close(fds[1]);
}
#endif

TEST_HARNESS_MAIN
