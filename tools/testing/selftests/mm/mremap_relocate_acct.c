// SPDX-License-Identifier: GPL-2.0-only
/*
 * MREMAP_RELOCATE_ANON and MREMAP_MUST_RELOCATE_ANON: what else belongs to a
 * mapping. The process's accounts, limits and locks, soft-dirty bits, policies,
 * names and registrations must be as a plain mremap() leaves them.
 */
#include "kselftest_harness.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "mremap_relocate_util.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP	4
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA		0x53564d41
#define PR_SET_VMA_ANON_NAME	0
#endif
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE		0x08
#endif
#ifndef __NR_mseal
#define __NR_mseal		462
#endif

#ifndef UFFD_FEATURE_RWP
#define UFFD_FEATURE_RWP		BIT_ULL(17)
#define UFFDIO_REGISTER_MODE_RWP	BIT_ULL(3)
#define UFFDIO_RWPROTECT_MODE_RWP	BIT_ULL(0)
struct uffdio_rwprotect {
	struct uffdio_range range;
	__u64 mode;
};

#define UFFDIO_RWPROTECT	_IOWR(UFFDIO, 0x09, struct uffdio_rwprotect)
#endif

#define MPOL_BIND		2
#define MPOL_F_ADDR		2

#define KPF_MLOCKED		BIT_ULL(33)

#define NR_PAGES			64

/*
 * The books. Each scenario is run in a process of its own, once with a plain
 * mremap() and once with each flag, and must change every figure by as much.
 */
enum figure_id {
	VM_SIZE, VM_LOCKED, VM_DATA, RSS_ANON, VM_SWAP, COMMITTED, NR_FIGURES
};

static const char * const figure_names[NR_FIGURES] = {
	"VmSize", "VmLck", "VmData", "RssAnon", "VmSwap", "Committed_AS",
};

struct figures {
	long kb[NR_FIGURES];
	bool failed;
	int error;
};

static void read_figures(struct figures *figures)
{
	int i;

	for (i = 0; i < NR_FIGURES; i++)
		figures->kb[i] = i == COMMITTED ? meminfo_kb(figure_names[i]) :
			status_kb(figure_names[i]);
}

enum preparation {
	SIMPLE		= 0,
	MLOCKED		= 1 << 0,
	SWAPPED		= 1 << 1,
	SHARED		= 1 << 2,	/* with a child */
	READ_ONLY	= 1 << 3,
	NEVER_FAULTED	= 1 << 4,
	NO_RESERVE	= 1 << 5,
	LEFT		= 1 << 6,	/* there is a neighbour to merge with */
	OVER		= 1 << 7,	/* and the destination is not free */
};

struct scenario {
	unsigned int preparation;
	size_t first, old_nr, new_nr;	/* which of the NR pages are moved */
	int flags;
};

static void run_scenario(struct arena *arena, const struct scenario *scenario,
			 int flags, struct figures *delta)
{
	const unsigned int prep = scenario->preparation;
	char *ptr = arena_at(arena, 10), *to = arena_at(arena, 200);
	struct figures before, after;
	char *left = to - PAGES(4);
	struct step step;
	pid_t pid = 0;
	void *res;
	int i;

	if (mmap(ptr, PAGES(NR_PAGES), PROT_READ | PROT_WRITE, MAP_PRIVATE |
		 MAP_ANONYMOUS | MAP_FIXED | (prep & NO_RESERVE ? MAP_NORESERVE : 0),
		 -1, 0) != ptr)
		ksft_exit_fail_perror("mmap");
	if (prep & OVER)
		fill(arena_map(arena, 196, NR_PAGES / 2 + 4), NR_PAGES / 2 + 4, 9);
	else if (prep & LEFT)
		fill(arena_map(arena, 196, 4), 4, 9);

	if (!(prep & NEVER_FAULTED))
		fill(ptr, NR_PAGES, 1);
	if (prep & SWAPPED && pageout(arena, ptr, NR_PAGES / 2, NR_PAGES / 2) != NR_PAGES / 2)
		ksft_exit_fail_msg("cannot swap out\n");
	if (prep & MLOCKED && (mlock(ptr, PAGES(NR_PAGES)) ||
			       (prep & LEFT && mlock(left, PAGES(4)))))
		ksft_exit_fail_perror("mlock");
	if (prep & READ_ONLY && mprotect(ptr, PAGES(NR_PAGES), PROT_READ))
		ksft_exit_fail_perror("mprotect");
	if (prep & SHARED)
		pid = share_with_child(arena, ptr, NR_PAGES, 0, 1, &step);

	/* The first reading is for what reading needs itself. */
	read_figures(&before);
	read_figures(&after);
	read_figures(&before);
	res = sys_mremap(ptr + PAGES(scenario->first), PAGES(scenario->old_nr),
			 PAGES(scenario->new_nr), MREMAP_MAYMOVE | MREMAP_FIXED |
			 scenario->flags | flags, to);
	delta->error = res == MAP_FAILED ? errno : 0;
	read_figures(&after);

	for (i = 0; i < NR_FIGURES; i++)
		delta->kb[i] = after.kb[i] - before.kb[i];

	if (res != MAP_FAILED && !(prep & NEVER_FAULTED) &&
	    !intact_from(to, scenario->old_nr < scenario->new_nr ?
			 scenario->old_nr : scenario->new_nr, 1, scenario->first))
		delta->failed = true;
	if (pid) {
		tell_child(&step);
		if (!reap(pid))
			delta->failed = true;
	}
}

static void in_process(const struct scenario *scenario, int flags,
		       struct figures *delta)
{
	struct figures *shared;
	struct arena arena;
	pid_t pid;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		ksft_exit_fail_perror("mmap");
	memset(shared, 0, sizeof(*shared));

	pid = fork();
	if (pid < 0)
		ksft_exit_fail_perror("fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
		arena_init(&arena, 400, 0);
		run_scenario(&arena, scenario, flags, shared);
		_exit(0);
	}
	if (!reap(pid))
		shared->failed = true;
	*delta = *shared;
	munmap(shared, sizeof(*shared));
}

/*
 * What is committed is a figure of the whole system, and others may change it
 * at the same time. What the flag changes would show every time.
 */
static bool same_as_plain(const struct scenario *scenario, int flags)
{
	struct figures plain, other;
	int try, i;
	bool same;

	for (try = 0; try < 5; try++) {
		in_process(scenario, 0, &plain);
		in_process(scenario, flags, &other);
		same = !plain.failed && !other.failed && plain.error == other.error;
		for (i = 0; i < NR_FIGURES; i++)
			same = same && plain.kb[i] == other.kb[i];
		if (same)
			return true;
	}

	ksft_print_msg("flags %d: errors %d and %d%s%s\n", flags, plain.error,
		       other.error, plain.failed ? ", plain failed" : "",
		       other.failed ? ", flagged failed" : "");
	for (i = 0; i < NR_FIGURES; i++) {
		if (plain.kb[i] != other.kb[i])
			ksft_print_msg("%s changes by %ld kB plainly, by %ld kB with the flag\n",
				       figure_names[i], plain.kb[i], other.kb[i]);
	}
	return false;
}

FIXTURE(books)
{
};

FIXTURE_VARIANT(books)
{
	struct scenario scenario;
	bool refused;		/* With MUST, which then must change nothing. */
};

FIXTURE_VARIANT_ADD(books, simple)
{
	.scenario = { SIMPLE, 0, NR_PAGES, NR_PAGES },
};

FIXTURE_VARIANT_ADD(books, merging)
{
	.scenario = { LEFT, 0, NR_PAGES, NR_PAGES },
};

FIXTURE_VARIANT_ADD(books, never_faulted)
{
	.scenario = { NEVER_FAULTED | LEFT, 0, NR_PAGES, NR_PAGES },
};

FIXTURE_VARIANT_ADD(books, growing)
{
	.scenario = { LEFT, 0, NR_PAGES, NR_PAGES + 32 },
};

FIXTURE_VARIANT_ADD(books, shrinking)
{
	.scenario = { LEFT, 0, NR_PAGES, NR_PAGES - 32 },
};

FIXTURE_VARIANT_ADD(books, part)
{
	.scenario = { LEFT, 16, 32, 32 },
};

FIXTURE_VARIANT_ADD(books, over)
{
	.scenario = { OVER, 0, NR_PAGES, NR_PAGES },
};

FIXTURE_VARIANT_ADD(books, read_only)
{
	.scenario = { READ_ONLY | LEFT, 0, NR_PAGES, NR_PAGES },
};

FIXTURE_VARIANT_ADD(books, no_reserve)
{
	.scenario = { NO_RESERVE | LEFT, 0, NR_PAGES, NR_PAGES },
};

FIXTURE_VARIANT_ADD(books, mlocked)
{
	.scenario = { MLOCKED | LEFT, 0, NR_PAGES, NR_PAGES },
};

FIXTURE_VARIANT_ADD(books, mlocked_growing)
{
	.scenario = { MLOCKED | LEFT, 0, NR_PAGES, NR_PAGES + 32 },
};

FIXTURE_VARIANT_ADD(books, mlocked_part)
{
	.scenario = { MLOCKED | LEFT, 16, 32, 32 },
};

FIXTURE_VARIANT_ADD(books, mlocked_over)
{
	.scenario = { MLOCKED | OVER, 0, NR_PAGES, NR_PAGES },
};

FIXTURE_VARIANT_ADD(books, dontunmap)
{
	.scenario = { LEFT, 0, NR_PAGES, NR_PAGES, MREMAP_DONTUNMAP },
};

FIXTURE_VARIANT_ADD(books, dontunmap_part)
{
	.scenario = { LEFT, 16, 32, 32, MREMAP_DONTUNMAP },
};

FIXTURE_VARIANT_ADD(books, dontunmap_mlocked)
{
	.scenario = { MLOCKED | LEFT, 0, NR_PAGES, NR_PAGES, MREMAP_DONTUNMAP },
};

FIXTURE_VARIANT_ADD(books, dontunmap_mlocked_part)
{
	.scenario = { MLOCKED | LEFT, 16, 32, 32, MREMAP_DONTUNMAP },
};

FIXTURE_VARIANT_ADD(books, swapped)
{
	.scenario = { SWAPPED | LEFT, 0, NR_PAGES, NR_PAGES },
};

FIXTURE_VARIANT_ADD(books, refused)
{
	.scenario = { SHARED | LEFT, 0, NR_PAGES, NR_PAGES }, .refused = true,
};

FIXTURE_VARIANT_ADD(books, refused_growing)
{
	.scenario = { SHARED | LEFT, 0, NR_PAGES, NR_PAGES + 32 }, .refused = true,
};

FIXTURE_VARIANT_ADD(books, refused_part)
{
	.scenario = { SHARED | LEFT, 16, 32, 32 }, .refused = true,
};

FIXTURE_VARIANT_ADD(books, refused_mlocked_growing)
{
	.scenario = { SHARED | MLOCKED | LEFT, 0, NR_PAGES, NR_PAGES + 32 }, .refused = true,
};

FIXTURE_VARIANT_ADD(books, refused_dontunmap)
{
	.scenario = { SHARED | LEFT, 0, NR_PAGES, NR_PAGES, MREMAP_DONTUNMAP },
	.refused = true,
};

FIXTURE_VARIANT_ADD(books, refused_dontunmap_mlocked_part)
{
	.scenario = { SHARED | MLOCKED | LEFT, 16, 32, 32, MREMAP_DONTUNMAP },
	.refused = true,
};

FIXTURE_SETUP(books)
{
	if (variant->scenario.preparation & SWAPPED && !can_swap())
		SKIP(return, "no swap");
}

FIXTURE_TEARDOWN(books)
{
}

TEST_F(books, relocate)
{
	EXPECT_TRUE(same_as_plain(&variant->scenario, RELOCATE_ANON));
}

TEST_F(books, must)
{
	struct figures delta;
	int try, i;
	long sum;

	if (!variant->refused) {
		EXPECT_TRUE(same_as_plain(&variant->scenario, MUST_RELOCATE_ANON));
		return;
	}

	for (try = 0; try < 5; try++) {
		in_process(&variant->scenario, MUST_RELOCATE_ANON, &delta);
		for (i = 0, sum = 0; i < NR_FIGURES; i++)
			sum += labs(delta.kb[i]);
		if (!sum)
			break;
	}
	EXPECT_EQ(delta.error, EFAULT);
	EXPECT_FALSE(delta.failed);
	for (i = 0; i < NR_FIGURES; i++) {
		EXPECT_EQ(delta.kb[i], 0) {
			TH_LOG("%s", figure_names[i]);
		}
	}
}

/* What else there is, by one test each. */
FIXTURE(others)
{
	struct arena arena;
	struct snapshot snap;
	char *left, *ptr, *to;
};

FIXTURE_VARIANT(others)
{
	int flags;
};

FIXTURE_VARIANT_ADD(others, relocate)
{
	.flags = RELOCATE_ANON,
};

FIXTURE_VARIANT_ADD(others, must)
{
	.flags = MUST_RELOCATE_ANON,
};

/* ..[AAAA]..[BBBB]....   ->   ..____..[BBBBAAAA].. */
static void map_both(FIXTURE_DATA(others) * self)
{
	self->left = arena_map(&self->arena, 196, 4);
	self->ptr = arena_map(&self->arena, 10, NR_PAGES);
	self->to = arena_at(&self->arena, 200);
	fill(self->left, 4, 9);
	fill(self->ptr, NR_PAGES, 1);
}

FIXTURE_SETUP(others)
{
	ASSERT_EQ(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	arena_init(&self->arena, 400, 0);
	map_both(self);
}

FIXTURE_TEARDOWN(others)
{
	arena_exit(&self->arena);
}

static void expect_merged(struct __test_metadata *_metadata,
			  FIXTURE_DATA(others) * self, size_t nr)
{
	EXPECT_TRUE(is_one_vma(&self->arena, self->left, 4 + nr));
	EXPECT_TRUE(healthy(&self->arena, self->to, nr, 1));
	EXPECT_TRUE(healthy(&self->arena, self->left, 4, 9));
}

/* A move makes what it moves soft-dirty, and nothing else. */
TEST_F(others, soft_dirty)
{
	struct arena *arena = &self->arena;
	char *rest = self->ptr + PAGES(NR_PAGES / 2);
	size_t i;

	if (!softdirty_supported())
		SKIP(return, "no soft-dirty bits");

	/* For the bits, not for the VMA, which is as dirty as before. */
	clear_softdirty();
	ASSERT_EQ(count_entries(arena, self->ptr, NR_PAGES, PM_SOFT_DIRTY,
				PM_SOFT_DIRTY), 0);
	ASSERT_EQ(relocate(self->ptr, NR_PAGES / 2, variant->flags, self->to),
		  self->to);
	for (i = 0; i < NR_PAGES / 2; i++)
		EXPECT_TRUE(pagemap_is_softdirty(arena->pagemap,
						 self->to + PAGES(i)));
	EXPECT_EQ(count_entries(arena, rest, NR_PAGES / 2, PM_SOFT_DIRTY,
				PM_SOFT_DIRTY), 0);
	EXPECT_TRUE(is_one_vma(arena, self->left, 4 + NR_PAGES / 2));
	EXPECT_TRUE(healthy(arena, self->to, NR_PAGES / 2, 1));
}

/*
 * A new mapping is soft-dirty as a whole, whatever of it was written to. That
 * does not keep it apart from one that is not, and it is so after a merge.
 */
static void test_soft_dirty_merge(struct __test_metadata *_metadata,
				  FIXTURE_DATA(others) * self, bool move_new,
				  int flags)
{
	struct arena *arena = &self->arena;
	char *hole;

	if (!softdirty_supported())
		SKIP(return, "no soft-dirty bits");

	clear_softdirty();
	if (move_new) {
		arena_unmap(arena, 10, NR_PAGES);
		arena_map(arena, 10, NR_PAGES);
		fill(self->ptr, NR_PAGES / 2, 1);
		hole = self->to + PAGES(NR_PAGES / 2);
	} else {
		arena_unmap(arena, 196, 4);
		arena_map(arena, 196, 4);
		fill(self->left, 2, 9);
		hole = self->left + PAGES(2);
	}
	ASSERT_EQ(count_entries(arena, move_new ? self->left : self->ptr, 4,
				PM_SOFT_DIRTY, PM_SOFT_DIRTY), 0);

	/* In the pictures, lower case is a hole: [BB][Aa] or [Bb][AA] */
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, flags, self->to), self->to);
	EXPECT_TRUE(is_one_vma(arena, self->left, 4 + NR_PAGES));
	EXPECT_EQ(count_entries(arena, self->to, NR_PAGES, PM_SOFT_DIRTY, PM_SOFT_DIRTY),
		  NR_PAGES);
	EXPECT_EQ(nr_present(arena, hole, 2), 0);
	EXPECT_EQ(count_entries(arena, hole, 2, PM_SOFT_DIRTY, PM_SOFT_DIRTY), 2);
	EXPECT_TRUE(healthy(arena, self->to, NR_PAGES / 2, 1));
	EXPECT_TRUE(healthy(arena, self->left, 2, 9));
}

TEST_F(others, soft_dirty_moves_beside_clean)
{
	test_soft_dirty_merge(_metadata, self, true, variant->flags);
}

TEST_F(others, clean_moves_beside_soft_dirty)
{
	test_soft_dirty_merge(_metadata, self, false, variant->flags);
}

/* And what is refused is as clean as it was. */
TEST_F(others, soft_dirty_refused)
{
	struct arena *arena = &self->arena;
	struct step step;
	pid_t pid;

	if (!softdirty_supported())
		SKIP(return, "no soft-dirty bits");

	/* The last page is the one that is shared. */
	pid = share_with_child(arena, self->ptr, NR_PAGES, NR_PAGES - 1, 1, &step);
	ASSERT_TRUE(is_one_vma(arena, self->ptr, NR_PAGES));

	clear_softdirty();
	snapshot_take(&self->snap, arena, self->ptr, NR_PAGES);
	EXPECT_TRUE(is_refused(&self->snap, self->ptr, NR_PAGES,
			       MUST_RELOCATE_ANON, self->to));
	EXPECT_EQ(count_entries(arena, self->ptr, NR_PAGES, PM_SOFT_DIRTY,
				PM_SOFT_DIRTY), 0);
	tell_child(&step);
	EXPECT_TRUE(reap(pid));
	EXPECT_TRUE(healthy(arena, self->ptr, NR_PAGES, 1));
}

/* Locked pages stay locked, and a locked mapping that grows is populated. */
TEST_F(others, mlocked)
{
	struct arena *arena = &self->arena;
	long locked = status_kb("VmLck");
	size_t i;

	if (mlock(self->ptr, PAGES(NR_PAGES)) || mlock(self->left, PAGES(4)))
		SKIP(return, "cannot lock so many pages");
	ASSERT_EQ(sys_mremap(self->ptr, PAGES(NR_PAGES), PAGES(NR_PAGES + 16), MREMAP_MAYMOVE |
			     MREMAP_FIXED | variant->flags, self->to), self->to);
	EXPECT_TRUE(is_one_vma(arena, self->left, 4 + NR_PAGES + 16));
	EXPECT_EQ(status_kb("VmLck") - locked, (long)PAGES(4 + NR_PAGES + 16) / 1024);
	EXPECT_EQ(nr_present(arena, self->to, NR_PAGES + 16), NR_PAGES + 16);
	if (arena->kpageflags >= 0 && page_flags(arena, self->to)) {
		for (i = 0; i < NR_PAGES; i++)
			EXPECT_TRUE(page_flags(arena,
					       self->to + PAGES(i)) & KPF_MLOCKED);
	}
	EXPECT_TRUE(intact(self->to, NR_PAGES, 1));

	ASSERT_EQ(munlock(self->left, PAGES(4 + NR_PAGES + 16)), 0);
	EXPECT_EQ(status_kb("VmLck"), locked);
	EXPECT_TRUE(healthy(arena, self->to, NR_PAGES, 1));
	EXPECT_TRUE(healthy(arena, self->left, 4, 9));
}

TEST_F(others, mlockall)
{
	if (mlockall(MCL_CURRENT | MCL_FUTURE))
		SKIP(return, "cannot lock everything");
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags, self->to),
		  self->to);
	EXPECT_TRUE(is_one_vma(&self->arena, self->left, 4 + NR_PAGES));
	EXPECT_TRUE(intact(self->to, NR_PAGES, 1));
	ASSERT_EQ(munlockall(), 0);
	expect_merged(_metadata, self, NR_PAGES);
}

/* Limits are met where a plain mremap() meets them, and nothing is changed. */
TEST_F(others, limits)
{
	const int flags[] = { 0, variant->flags };
	struct rlimit limit, none;
	size_t i;

	/* What is unmapped to make room is unmapped before the limit is looked at. */
	ASSERT_EQ(munmap(self->to, PAGES(2 * NR_PAGES)), 0);
	ASSERT_EQ(getrlimit(RLIMIT_AS, &none), 0);
	limit = none;
	limit.rlim_cur = status_kb("VmSize") * 1024 + PAGES(NR_PAGES / 2);
	ASSERT_EQ(setrlimit(RLIMIT_AS, &limit), 0);
	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		void *kept, *grown;
		int err[2];

		snapshot_take(&self->snap, &self->arena, self->ptr, NR_PAGES);
		kept = relocate(self->ptr, NR_PAGES, flags[i] | MREMAP_DONTUNMAP, self->to);
		err[0] = errno;
		grown = sys_mremap(self->ptr, PAGES(NR_PAGES), PAGES(2 * NR_PAGES),
				   MREMAP_MAYMOVE | MREMAP_FIXED | flags[i], self->to);
		err[1] = errno;
		ASSERT_EQ(kept, MAP_FAILED);
		EXPECT_EQ(err[0], ENOMEM);
		ASSERT_EQ(grown, MAP_FAILED);
		EXPECT_EQ(err[1], ENOMEM);
		EXPECT_TRUE(snapshot_same(&self->snap));
		EXPECT_TRUE(intact(self->ptr, NR_PAGES, 1));
	}

	/* A move needs nothing. */
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags, self->to),
		  self->to);
	ASSERT_EQ(setrlimit(RLIMIT_AS, &none), 0);
	expect_merged(_metadata, self, NR_PAGES);
}

TEST_F(others, memlock_limit)
{
	struct rlimit limit;

	if (mlock(self->ptr, PAGES(NR_PAGES)))
		SKIP(return, "cannot lock so many pages");
	/* Root is above this limit. */
	limit.rlim_cur = PAGES(NR_PAGES);
	limit.rlim_max = PAGES(NR_PAGES);
	ASSERT_EQ(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
	if (!geteuid() && prctl(PR_CAPBSET_READ, 14 /* CAP_IPC_LOCK */, 0, 0, 0) == 1)
		ASSERT_EQ(syscall(__NR_setresuid, 65534, 65534, 65534), 0);

	ASSERT_EQ(sys_mremap(self->ptr, PAGES(NR_PAGES), PAGES(NR_PAGES + 1), MREMAP_MAYMOVE |
			     MREMAP_FIXED | variant->flags, self->to), MAP_FAILED);
	EXPECT_EQ(errno, EAGAIN);
	EXPECT_TRUE(intact(self->ptr, NR_PAGES, 1));
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags, self->to),
		  self->to);
	EXPECT_TRUE(is_one_vma(&self->arena, self->to, NR_PAGES));
	EXPECT_TRUE(intact(self->to, NR_PAGES, 1));
}

static int get_policy(char *ptr)
{
	int mode = -1;

	syscall(__NR_get_mempolicy, &mode, NULL, 0, ptr, MPOL_F_ADDR);
	return mode;
}

/* A policy goes with its mapping, and only equals merge. */
TEST_F(others, numa_policy)
{
	unsigned long node = 1ul << 0;

	if (syscall(__NR_mbind, self->ptr, PAGES(NR_PAGES), MPOL_BIND, &node, 64, 0))
		SKIP(return, "no memory policies");
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags, self->to),
		  self->to);
	EXPECT_EQ(get_policy(self->to), MPOL_BIND);
	EXPECT_EQ(get_policy(self->left), 0);
	EXPECT_TRUE(is_one_vma(&self->arena, self->to, NR_PAGES));

	/* Made equal, they merge. */
	ASSERT_EQ(syscall(__NR_mbind, self->left, PAGES(4), MPOL_BIND, &node,
			  64, 0), 0);
	ASSERT_EQ(relocate(self->to, NR_PAGES, variant->flags, self->ptr),
		  self->ptr);
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags, self->to),
		  self->to);
	expect_merged(_metadata, self, NR_PAGES);
	EXPECT_EQ(get_policy(self->to), MPOL_BIND);
}

static int name_vma(char *ptr, size_t nr, const char *name)
{
	return prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, ptr, PAGES(nr), name);
}

static bool has_name(struct arena *arena, char *ptr, const char *name)
{
	char buf[128] = "";

	arena->procmap.query.vma_name_addr = (unsigned long)buf;
	arena->procmap.query.vma_name_size = sizeof(buf);
	if (!find_vma_procmap(&arena->procmap, ptr))
		buf[0] = '\0';
	arena->procmap.query.vma_name_addr = 0;
	arena->procmap.query.vma_name_size = 0;
	return strstr(buf, name);
}

TEST_F(others, named)
{
	struct arena *arena = &self->arena;

	if (name_vma(self->ptr, NR_PAGES, "one") || name_vma(self->left, 4, "other"))
		SKIP(return, "no names for anonymous memory");
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags, self->to),
		  self->to);
	EXPECT_TRUE(is_one_vma(arena, self->to, NR_PAGES));
	EXPECT_TRUE(has_name(arena, self->to, "one"));
	EXPECT_TRUE(has_name(arena, self->left, "other"));

	/* By the same name, they are one. */
	ASSERT_EQ(name_vma(self->left, 4, "one"), 0);
	expect_merged(_metadata, self, NR_PAGES);
	EXPECT_TRUE(has_name(arena, self->left, "one"));
}

/* Advice that is kept in the VMA is kept, and decides who is a neighbour. */
TEST_F(others, advice)
{
	struct arena *arena = &self->arena;
	pid_t pid;

	ASSERT_EQ(madvise(self->ptr, PAGES(NR_PAGES), MADV_WIPEONFORK), 0);
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags, self->to),
		  self->to);
	EXPECT_TRUE(is_one_vma(arena, self->to, NR_PAGES));
	pid = fork_child(arena);
	if (!pid)
		_exit(!all_zero(self->to, NR_PAGES) || !intact(self->left, 4, 9));
	EXPECT_TRUE(reap(pid));
	ASSERT_EQ(madvise(self->to, PAGES(NR_PAGES), MADV_KEEPONFORK), 0);

	/*
	 * Faulted in while they differed, each is on its own, as memory would
	 * be that was mapped here. The flag can still put that right.
	 */
	ASSERT_EQ(relocate(self->to, NR_PAGES, variant->flags, self->ptr),
		  self->ptr);
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags, self->to),
		  self->to);
	expect_merged(_metadata, self, NR_PAGES);
}

TEST_F(others, no_access)
{
	struct arena *arena = &self->arena;
	__u64 entries[NR_PAGES];

	read_entries(arena, self->ptr, NR_PAGES, entries);
	ASSERT_EQ(mprotect(self->ptr, PAGES(NR_PAGES), PROT_NONE), 0);
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags, self->to),
		  self->to);
	EXPECT_TRUE(faults(self->to));
	EXPECT_TRUE(same_entries(arena, self->to, NR_PAGES, entries));
	ASSERT_EQ(mprotect(self->to, PAGES(NR_PAGES), PROT_READ | PROT_WRITE), 0);
	expect_merged(_metadata, self, NR_PAGES);
}

/* Sealed is sealed: as today, and before anything else is looked at. */
TEST_F(others, sealed)
{
	if (syscall(__NR_mseal, self->ptr, PAGES(NR_PAGES), 0))
		SKIP(return, "no mseal()");
	snapshot_take(&self->snap, &self->arena, self->ptr, NR_PAGES);
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags, self->to),
		  MAP_FAILED);
	EXPECT_EQ(errno, EPERM);
	ASSERT_EQ(sys_mremap(self->ptr, PAGES(NR_PAGES), PAGES(NR_PAGES + 1),
			     MREMAP_MAYMOVE | variant->flags, NULL), MAP_FAILED);
	EXPECT_EQ(errno, EPERM);
	EXPECT_TRUE(snapshot_same(&self->snap));
	EXPECT_TRUE(healthy(&self->arena, self->ptr, NR_PAGES, 1));
	/* A sealed mapping cannot be taken down before the process ends. */
	_exit(_metadata->exit_code);
}

/* With MREMAP_MUST_RELOCATE_ANON, one of several keeps all where they are. */
TEST_F(others, sealed_in_part)
{
	const size_t half = NR_PAGES / 2;

	if (syscall(__NR_mseal, self->ptr + PAGES(half), PAGES(half), 0))
		SKIP(return, "no mseal()");
	ASSERT_EQ(nr_vmas(&self->arena, self->ptr, NR_PAGES), 2);
	snapshot_take(&self->snap, &self->arena, self->ptr, NR_PAGES);
	EXPECT_EQ(relocate(self->ptr, NR_PAGES, variant->flags | MUST_RELOCATE_ANON, self->to),
		  MAP_FAILED);
	EXPECT_EQ(errno, EPERM);
	EXPECT_TRUE(snapshot_same(&self->snap));
	EXPECT_TRUE(healthy(&self->arena, self->ptr, NR_PAGES, 1));
	_exit(_metadata->exit_code);
}

TEST_F(others, sealed_destination)
{
	if (syscall(__NR_mseal, self->left, PAGES(4), 0))
		SKIP(return, "no mseal()");
	snapshot_take(&self->snap, &self->arena, self->ptr, NR_PAGES);
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags, self->left),
		  MAP_FAILED);
	EXPECT_EQ(errno, EPERM);
	EXPECT_TRUE(snapshot_same(&self->snap));
	EXPECT_TRUE(healthy(&self->arena, self->ptr, NR_PAGES, 1));
	_exit(_metadata->exit_code);
}

/* The second of two VMAs would go where something is sealed. */
TEST_F(others, sealed_destination_of_the_next)
{
	const size_t half = NR_PAGES / 2;

	ASSERT_EQ(mprotect(self->ptr + PAGES(half), PAGES(half), PROT_READ), 0);
	arena_map(&self->arena, (self->to - self->arena.base) / psize() + half, 1);
	if (syscall(__NR_mseal, self->to + PAGES(half), PAGES(1), 0))
		SKIP(return, "no mseal()");
	snapshot_take(&self->snap, &self->arena, self->ptr, NR_PAGES);
	EXPECT_EQ(relocate(self->ptr, NR_PAGES, variant->flags | MUST_RELOCATE_ANON,
			   self->to), MAP_FAILED);
	EXPECT_EQ(errno, EPERM);
	EXPECT_TRUE(snapshot_same(&self->snap));
	EXPECT_TRUE(healthy(&self->arena, self->ptr, NR_PAGES, 1));
	_exit(_metadata->exit_code);
}

/* Pages that the kernel may drop: whatever it kept is there. */
TEST_F(others, droppable)
{
	char *ptr = arena_at(&self->arena, 100);
	size_t i;

	if (mmap(ptr, PAGES(4), PROT_READ | PROT_WRITE, MAP_DROPPABLE |
		 MAP_ANONYMOUS | MAP_FIXED, -1, 0) != ptr)
		SKIP(return, "no MAP_DROPPABLE");
	fill(ptr, 4, 3);
	ASSERT_EQ(relocate(ptr, 4, variant->flags, self->to), self->to);
	/* Nothing else is of this kind, so it has no neighbour to merge with. */
	EXPECT_TRUE(is_one_vma(&self->arena, self->to, 4));
	for (i = 0; i < 4; i++)
		EXPECT_TRUE(intact_from(self->to + PAGES(i), 1, 3, i) ||
			    all_zero(self->to + PAGES(i), 1));
}

/* The heap: what the top of it held is moved away, and the heap lives on. */
TEST_F(others, heap)
{
	char *heap = (char *)(((unsigned long)sbrk(0) + psize() - 1) & -(unsigned long)psize());

	ASSERT_EQ(brk(heap + PAGES(NR_PAGES)), 0);
	fill(heap, NR_PAGES, 1);
	ASSERT_EQ(relocate(heap + PAGES(NR_PAGES / 2), NR_PAGES / 2, variant->flags, self->to),
		  self->to);
	EXPECT_TRUE(is_one_vma(&self->arena, self->left, 4 + NR_PAGES / 2));
	EXPECT_TRUE(healthy_from(&self->arena, self->to, NR_PAGES / 2, 1,
				 NR_PAGES / 2));
	EXPECT_TRUE(healthy_from(&self->arena, heap, NR_PAGES / 2, 1, 0));
	ASSERT_EQ(brk(heap), 0);
}

/* Old frames of the stack. What moves away from it still grows downwards. */
TEST_F(others, stack)
{
	char here, *stack;

	stack = (char *)(((unsigned long)&here & -(unsigned long)psize()) - PAGES(40));
	fill(stack, NR_PAGES / 4, 1);
	ASSERT_EQ(relocate(stack, NR_PAGES / 4, variant->flags, self->to),
		  self->to);
	EXPECT_TRUE(healthy(&self->arena, self->to, NR_PAGES / 4, 1));
	EXPECT_TRUE(healthy(&self->arena, self->left, 4, 9));
	/* Before anything calls so deep again. */
	ASSERT_EQ(relocate(self->to, NR_PAGES / 4, variant->flags, stack), stack);
	EXPECT_TRUE(intact(stack, NR_PAGES / 4, 1));
}

/* A range that userfaultfd watches for missing pages, with some missing. */
TEST_F(others, uffd_missing)
{
	struct arena *arena = &self->arena;
	int uffd;

	uffd = open_uffd(0);
	if (uffd < 0)
		SKIP(return, "no userfaultfd");
	ASSERT_EQ(madvise(self->ptr + PAGES(8), PAGES(8), MADV_DONTNEED), 0);
	ASSERT_EQ(uffd_register(uffd, self->ptr, PAGES(NR_PAGES), true, false,
				false), 0);

	/* No event was asked for, so the new mapping is a free one. */
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags, self->to),
		  self->to);
	EXPECT_TRUE(is_one_vma(arena, self->left, 4 + NR_PAGES));
	EXPECT_TRUE(all_zero(self->to + PAGES(8), 8));
	EXPECT_TRUE(healthy_from(arena, self->to, 8, 1, 0));
	EXPECT_TRUE(healthy_from(arena, self->to + PAGES(16), NR_PAGES - 16, 1,
				 16));
	close(uffd);
}

/* The neighbour is watched, what moves to its side is not: they stay two. */
TEST_F(others, uffd_neighbour)
{
	struct arena *arena = &self->arena;
	int uffd;

	uffd = open_uffd(0);
	if (uffd < 0)
		SKIP(return, "no userfaultfd");
	ASSERT_EQ(uffd_register(uffd, self->left, PAGES(4), true, false, false), 0);
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags, self->to),
		  self->to);
	EXPECT_TRUE(is_one_vma(arena, self->left, 4));
	EXPECT_TRUE(is_one_vma(arena, self->to, NR_PAGES));

	/* When the watch has ended, nothing keeps them apart. */
	close(uffd);
	ASSERT_EQ(relocate(self->to, NR_PAGES, variant->flags, self->ptr),
		  self->ptr);
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags, self->to),
		  self->to);
	expect_merged(_metadata, self, NR_PAGES);
}

/* Such a mapping cannot be one of several. All of them stay where they are. */
TEST_F(others, uffd_one_of_several)
{
	struct arena *arena = &self->arena;
	const size_t half = NR_PAGES / 2;
	int uffd;

	uffd = open_uffd(0);
	if (uffd < 0)
		SKIP(return, "no userfaultfd");
	ASSERT_EQ(uffd_register(uffd, self->ptr + PAGES(half), PAGES(half), true,
				false, false), 0);
	ASSERT_EQ(nr_vmas(arena, self->ptr, NR_PAGES), 2);
	snapshot_take(&self->snap, arena, self->ptr, NR_PAGES);
	EXPECT_TRUE(is_refused(&self->snap, self->ptr, NR_PAGES,
			       variant->flags | MUST_RELOCATE_ANON, self->to));
	close(uffd);
	EXPECT_TRUE(healthy(arena, self->ptr, NR_PAGES, 1));
}

static int rwp_register(int uffd, char *ptr, size_t nr)
{
	struct uffdio_register reg = {
		.range = { .start = (unsigned long)ptr, .len = PAGES(nr) },
		.mode = UFFDIO_REGISTER_MODE_RWP,
	};

	return ioctl(uffd, UFFDIO_REGISTER, &reg);
}

static int rwp_range(int uffd, char *ptr, size_t nr, bool protect)
{
	struct uffdio_rwprotect rwp = {
		.range = { .start = (unsigned long)ptr, .len = PAGES(nr) },
		.mode = protect ? UFFDIO_RWPROTECT_MODE_RWP : 0,
	};

	return ioctl(uffd, UFFDIO_RWPROTECT, &rwp);
}

/*
 * Read-write protection: no page that is protected can be read or written, but
 * all are there. Every second page is, some are in swap and some are missing.
 * An access to a protected page gets an error instead of a message.
 */
static int protect_some(struct __test_metadata *_metadata,
			FIXTURE_DATA(others) * self, __u64 features)
{
	int uffd, i;

	uffd = open_uffd(UFFD_FEATURE_RWP | UFFD_FEATURE_SIGBUS | features);
	if (uffd < 0)
		return -1;
	ASSERT_EQ(rwp_register(uffd, self->ptr, NR_PAGES), 0);
	if (features & UFFD_FEATURE_EVENT_REMAP)
		ASSERT_EQ(rwp_register(uffd, self->left, 4), 0);
	for (i = 0; i < NR_PAGES; i += 2)
		ASSERT_EQ(rwp_range(uffd, self->ptr + PAGES(i), 1, true), 0);
	if (can_swap())
		ASSERT_EQ(pageout(&self->arena, self->ptr, 4, 4), 4);
	ASSERT_EQ(madvise(self->ptr + PAGES(8), PAGES(8), MADV_DONTNEED), 0);
	ASSERT_EQ(count_entries(&self->arena, self->ptr, NR_PAGES, PM_UFFD_WP,
				PM_UFFD_WP), (NR_PAGES - 8) / 2);
	ASSERT_TRUE(faults(self->ptr + PAGES(16)));
	ASSERT_FALSE(faults(self->ptr + PAGES(17)));
	return uffd;
}

/* mremap() waits until the event that it causes has been read. */
static void *read_remap(void *arg)
{
	struct pollfd pollfd = { .fd = *(int *)arg, .events = POLLIN };
	struct uffd_msg msg;
	bool ok;

	ok = poll(&pollfd, 1, 10000) == 1 &&
	     read(pollfd.fd, &msg, sizeof(msg)) == sizeof(msg) &&
	     msg.event == UFFD_EVENT_REMAP && msg.arg.remap.len == PAGES(NR_PAGES);
	return ok ? arg : NULL;
}

/* What can be told of a range from outside, but for which pages it has. */
struct range_state {
	__u64 entries[NR_PAGES];
	bool faults[NR_PAGES];
	bool registered;
};

/* Protect, move and look. Returns false if there is no such protection. */
static bool move_protected(struct __test_metadata *_metadata,
			   FIXTURE_DATA(others) * self, __u64 features,
			   int flags, struct range_state *state)
{
	pthread_t thread;
	void *seen;
	int uffd, i;

	uffd = protect_some(_metadata, self, features);
	if (uffd < 0)
		return false;
	if (features & UFFD_FEATURE_EVENT_REMAP)
		ASSERT_EQ(pthread_create(&thread, NULL, read_remap, &uffd), 0);
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, flags, self->to), self->to);
	if (features & UFFD_FEATURE_EVENT_REMAP) {
		ASSERT_EQ(pthread_join(thread, &seen), 0);
		ASSERT_NE(seen, NULL);
	}

	read_entries(&self->arena, self->to, NR_PAGES, state->entries);
	for (i = 0; i < NR_PAGES; i++) {
		/* Not the number of the page or of the swap slot. */
		state->entries[i] &= ~(BIT_ULL(55) - 1);
		state->faults[i] = faults(self->to + PAGES(i));
	}
	/* The last page is not protected: this only asks. */
	state->registered = !rwp_range(uffd, self->to + PAGES(NR_PAGES - 1), 1, false);
	ASSERT_EQ(uffd_unregister(uffd, self->to, PAGES(NR_PAGES)), 0);
	if (features & UFFD_FEATURE_EVENT_REMAP)
		ASSERT_EQ(uffd_unregister(uffd, self->left, PAGES(4)), 0);
	close(uffd);
	return true;
}

static void expect_same_state(struct __test_metadata *_metadata,
			      const struct range_state *state,
			      const struct range_state *plain)
{
	int i;

	EXPECT_EQ(state->registered, plain->registered);
	for (i = 0; i < NR_PAGES; i++) {
		EXPECT_EQ(state->entries[i], plain->entries[i]) {
			TH_LOG("page %d", i);
		}
		EXPECT_EQ(state->faults[i], plain->faults[i]) {
			TH_LOG("page %d", i);
		}
	}
}

static void expect_intact_but_missing(struct __test_metadata *_metadata,
				      FIXTURE_DATA(others) * self)
{
	struct arena *arena = &self->arena;

	EXPECT_TRUE(healthy_from(arena, self->to, 8, 1, 0));
	EXPECT_TRUE(all_zero(self->to + PAGES(8), 8));
	EXPECT_TRUE(healthy_from(arena, self->to + PAGES(16), NR_PAGES - 16, 1,
				 16));
	EXPECT_TRUE(healthy(arena, self->left, 4, 9));
}

/* Not asked for the event: what has moved is free, and can all be used. */
TEST_F(others, uffd_rwp_without_event)
{
	struct range_state plain, state;

	if (!move_protected(_metadata, self, 0, 0, &plain))
		SKIP(return, "no read-write protection by userfaultfd");
	EXPECT_FALSE(plain.registered);
	expect_intact_but_missing(_metadata, self);
	arena_unmap(&self->arena, 0, 400);

	map_both(self);
	ASSERT_TRUE(move_protected(_metadata, self, 0, variant->flags, &state));
	expect_same_state(_metadata, &state, &plain);
	EXPECT_TRUE(is_one_vma(&self->arena, self->left, 4 + NR_PAGES));
	expect_intact_but_missing(_metadata, self);
}

/* Asked for: what was protected still is. */
TEST_F(others, uffd_rwp_with_event)
{
	struct range_state plain, state;
	int i;

	if (!move_protected(_metadata, self, UFFD_FEATURE_EVENT_REMAP, 0, &plain))
		SKIP(return, "no read-write protection by userfaultfd");
	EXPECT_TRUE(plain.registered);
	for (i = 0; i < NR_PAGES; i++)
		EXPECT_EQ(plain.faults[i], !(i & 1) && (i < 8 || i >= 16));
	expect_intact_but_missing(_metadata, self);
	arena_unmap(&self->arena, 0, 400);

	map_both(self);
	ASSERT_TRUE(move_protected(_metadata, self, UFFD_FEATURE_EVENT_REMAP,
				   variant->flags, &state));
	expect_same_state(_metadata, &state, &plain);
	EXPECT_TRUE(is_one_vma(&self->arena, self->left, 4 + NR_PAGES));
	expect_intact_but_missing(_metadata, self);
}

/* Refused, as a child has the pages too: still registered and protected. */
TEST_F(others, uffd_rwp_refused)
{
	struct arena *arena = &self->arena;
	struct step step;
	int uffd, i;
	pid_t pid;

	uffd = protect_some(_metadata, self, 0);
	if (uffd < 0)
		SKIP(return, "no read-write protection by userfaultfd");
	pid = share_with_child(arena, self->ptr, 8, 0, 1, &step);

	snapshot_take(&self->snap, arena, self->ptr, NR_PAGES);
	EXPECT_TRUE(is_refused(&self->snap, self->ptr, NR_PAGES,
			       MUST_RELOCATE_ANON, self->to));
	for (i = 16; i < NR_PAGES; i++)
		EXPECT_EQ(faults(self->ptr + PAGES(i)), !(i & 1));
	EXPECT_EQ(rwp_range(uffd, self->ptr, NR_PAGES, false), 0);
	EXPECT_TRUE(intact(self->ptr, 8, 1));
	tell_child(&step);
	EXPECT_TRUE(reap(pid));

	/* Now that it is alone, it can be moved. */
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags, self->to),
		  self->to);
	EXPECT_TRUE(is_one_vma(arena, self->left, 4 + NR_PAGES));
	expect_intact_but_missing(_metadata, self);
	close(uffd);
}

/*
 * The limit on the number of mappings, vm.max_map_count, is met in a process
 * that has almost as many. To lower it instead would be to lower it for all.
 */
#define MAX_FILLER		100000
#define MAX_SPARE		10
#define BLOCK			4
#define NR_BLOCKS		40

FIXTURE(map_count)
{
	struct arena arena;
	struct snapshot snap;
	size_t limit;
	char *filler, *end;
	char *first, *next;	/* Between these, each page is a mapping. */
};

FIXTURE_VARIANT(map_count)
{
	int flags;
};

FIXTURE_VARIANT_ADD(map_count, relocate)
{
	.flags = RELOCATE_ANON,
};

FIXTURE_VARIANT_ADD(map_count, must)
{
	.flags = MUST_RELOCATE_ANON,
};

FIXTURE_SETUP(map_count)
{
	char buf[32];

	if (!read_file("/proc/sys/vm/max_map_count", buf, sizeof(buf)))
		SKIP(return, "cannot read vm.max_map_count");
	self->limit = atol(buf);
	if (self->limit > MAX_FILLER)
		SKIP(return, "vm.max_map_count is too high to be reached");

	/* So much that there is room for the arena only below. */
	self->filler = mmap(NULL, PAGES(MAX_FILLER), PROT_NONE, MAP_PRIVATE |
			    MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(self->filler, MAP_FAILED);
	self->end = self->filler + PAGES(MAX_FILLER);
	self->first = self->filler;
	self->next = self->filler;

	/* A snapshot has the arena only if it is one of the first mappings. */
	arena_init(&self->arena, 400, 0);
	ASSERT_LT(self->arena.base, self->filler);
}

FIXTURE_TEARDOWN(map_count)
{
	arena_exit(&self->arena);
}

/* Have 'spare' mappings less than there may be. */
static void use_up(struct __test_metadata *_metadata,
		   FIXTURE_DATA(map_count) * self, size_t spare)
{
	const size_t below = (size_t)self->filler / psize();
	const size_t above = (-1ul - (size_t)self->end) / psize();
	size_t nr, i;

	nr = nr_vmas(&self->arena, NULL, below) +
	     (self->next - self->first) / psize() + 1 +
	     nr_vmas(&self->arena, self->end, above);
	ASSERT_LE(nr + spare, self->limit);

	/* [r][w][-----]   ->   [r][w][r][w][---] */
	for (i = self->limit - spare - nr; i; i--, self->next += PAGES(1)) {
		int prot = (self->next - self->filler) / psize() & 1 ?
			PROT_WRITE : PROT_READ;

		ASSERT_EQ(mprotect(self->next, PAGES(1), prot), 0);
	}
}

static void give_back_one(struct __test_metadata *_metadata,
			  FIXTURE_DATA(map_count) * self)
{
	ASSERT_LT(self->first, self->next);
	ASSERT_EQ(munmap(self->first, PAGES(1)), 0);
	self->first += PAGES(1);
}

/* Returns how many blocks were moved before there were too many mappings. */
static size_t compact(struct __test_metadata *_metadata,
		      FIXTURE_DATA(map_count) * self, int flags)
{
	struct arena *arena = &self->arena;
	char *ptr, *to = arena_at(arena, 100);
	size_t i;

	arena_unmap(arena, 0, arena->nr);
	use_up(_metadata, self, MAX_SPARE);
	for (i = 0; i < NR_BLOCKS; i++) {
		ptr = arena_map(arena, 10, BLOCK);
		fill_from(ptr, BLOCK, 1, i * BLOCK);
		snapshot_take(&self->snap, arena, ptr, BLOCK);
		ASSERT_NE(self->snap.maps[0], '\0');
		if (relocate(ptr, BLOCK, flags, to + PAGES(i * BLOCK)) == MAP_FAILED) {
			EXPECT_EQ(errno, ENOMEM);
			EXPECT_TRUE(snapshot_same(&self->snap));
			EXPECT_TRUE(intact_from(ptr, BLOCK, 1, i * BLOCK));
			break;
		}
		free(self->snap.entries);
	}
	EXPECT_TRUE(intact(to, i * BLOCK, 1));
	return i;
}

/*
 * A program that maps blocks, and moves each to the end of those before:
 *
 *	..[DDDD]..[AAAA][BBBB][CCCC]......   plainly,
 *	..[DDDD]..[AAAABBBBCCCC]..........   with the flag
 */
TEST_F(map_count, compacts)
{
	char *to = arena_at(&self->arena, 100);

	EXPECT_LT(compact(_metadata, self, 0), MAX_SPARE);
	EXPECT_GT(nr_vmas(&self->arena, to, NR_BLOCKS * BLOCK), 2);

	ASSERT_EQ(compact(_metadata, self, variant->flags), NR_BLOCKS);
	EXPECT_TRUE(is_one_vma(&self->arena, to, NR_BLOCKS * BLOCK));
	EXPECT_TRUE(healthy(&self->arena, to, NR_BLOCKS * BLOCK, 1));
}

/* How many more mappings must be allowed than there are for a move to go? */
static size_t spare_needed(struct __test_metadata *_metadata,
			   FIXTURE_DATA(map_count) * self,
			   const struct scenario *scenario, int flags)
{
	struct arena *arena = &self->arena;
	char *ptr, *to = arena_at(arena, 200);
	size_t spare;

	arena_unmap(arena, 0, arena->nr);
	ptr = arena_map(arena, 10, NR_PAGES);
	fill(ptr, NR_PAGES, 1);
	if (scenario->preparation & MLOCKED)
		ASSERT_EQ(mlock(ptr, PAGES(NR_PAGES)), 0);

	use_up(_metadata, self, 0);
	for (spare = 0; spare < MAX_SPARE; spare++) {
		snapshot_take(&self->snap, arena, ptr, NR_PAGES);
		ASSERT_NE(self->snap.maps[0], '\0');
		if (sys_mremap(ptr + PAGES(scenario->first),
			       PAGES(scenario->old_nr), PAGES(scenario->new_nr),
			       MREMAP_MAYMOVE | MREMAP_FIXED | scenario->flags |
			       flags, to) != MAP_FAILED) {
			free(self->snap.entries);
			break;
		}
		EXPECT_EQ(errno, ENOMEM);
		EXPECT_TRUE(snapshot_same(&self->snap));
		EXPECT_TRUE(intact(ptr, NR_PAGES, 1));
		give_back_one(_metadata, self);
	}
	ASSERT_LT(spare, MAX_SPARE);
	EXPECT_TRUE(intact_from(to, scenario->old_nr < scenario->new_nr ?
				scenario->old_nr : scenario->new_nr, 1,
				scenario->first));
	return spare;
}

/* What cannot be moved plainly for want of mappings cannot be with the flag. */
TEST_F(map_count, same_headroom)
{
	const struct scenario scenarios[] = {
		{ SIMPLE, 0, NR_PAGES, NR_PAGES },
		{ SIMPLE, 16, 32, 32 },
		{ SIMPLE, 0, NR_PAGES, NR_PAGES + 32 },
		{ SIMPLE, 0, NR_PAGES, NR_PAGES - 32 },
		{ SIMPLE, 16, 32, 32, MREMAP_DONTUNMAP },
		{ MLOCKED, 16, 32, 32, MREMAP_DONTUNMAP },
	};
	size_t plain, needed, i;

	for (i = 0; i < ARRAY_SIZE(scenarios); i++) {
		plain = spare_needed(_metadata, self, &scenarios[i], 0);
		needed = spare_needed(_metadata, self, &scenarios[i],
				      variant->flags);
		EXPECT_GT(plain, 0) {
			TH_LOG("scenario %zu", i);
		}
		EXPECT_EQ(needed, plain) {
			TH_LOG("scenario %zu", i);
		}
	}
}

/*
 * A process that is killed in the midst of a long move leaves nothing behind.
 * If it left page tables, the kernel would miss them when it frees the rest, and
 * say so in its log.
 */
#define KILLED_TABLES		256

static void move_until_killed(struct step *step, int flags)
{
	const size_t table = psize() / sizeof(__u64) * psize();
	const size_t len = KILLED_TABLES * table;
	char *ptr, *to;
	size_t i;

	ptr = mmap(NULL, 2 * len, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		   MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ptr == MAP_FAILED)
		_exit(1);
	/* A page for each page table, not where it ends or begins. */
	for (i = 0; i < KILLED_TABLES; i++)
		ptr[i * table + table / 2] = 1;
	/* To the other half, so that no page table is as it was. */
	to = ptr + len;
	tell_parent(step);
	for (;;) {
		if (relocate(ptr, len / psize(), flags, to) != to ||
		    relocate(to, len / psize(), flags, ptr) != ptr)
			_exit(2);
	}
}

TEST_F(others, killed_while_moving)
{
	long before, after;
	struct step step;
	pid_t pid;
	int i;

	step_init(&step);
	before = meminfo_kb("PageTables");
	for (i = 0; i < 20; i++) {
		pid = fork_child(&self->arena);
		if (!pid)
			move_until_killed(&step, variant->flags);
		wait_for_child(&step);
		usleep(1000 * i);
		ASSERT_TRUE(kill_child(pid));
	}
	after = meminfo_kb("PageTables");
	/* Less than each of them had. */
	EXPECT_LT(after - before, 4 * KILLED_TABLES * (long)psize() / 1024);
}

static bool read_anon(const char *file, long *value)
{
	char buf[8192];

	if (!read_file(file, buf, sizeof(buf)) || strncmp(buf, "anon ", 5))
		return false;
	*value = atol(buf + 5);
	return true;
}

/* The charge stays where it is: moving memory is not using more of it. */
TEST_F(others, memory_cgroup)
{
	char root[] = "/tmp/mremap_relocate_XXXXXX";
	char control[64], all[64], dir[64], procs[128], stat[128], pid[32];
	const size_t pages = 1024;
	long before, after;
	char *big;

	/* Whatever is mounted where, a mount of our own shows the hierarchy. */
	if (!mkdtemp(root) || mount("none", root, "cgroup2", 0, NULL)) {
		rmdir(root);
		SKIP(return, "cannot mount cgroup v2");
	}
	snprintf(control, sizeof(control), "%s/cgroup.subtree_control", root);
	snprintf(all, sizeof(all), "%s/cgroup.procs", root);
	snprintf(dir, sizeof(dir), "%s/relocate", root);
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", dir);
	snprintf(stat, sizeof(stat), "%s/memory.stat", dir);
	snprintf(pid, sizeof(pid), "%d", getpid());
	write_text(control, "+memory");
	mkdir(dir, 0755);
	if (!read_anon(stat, &before) || !write_text(procs, pid)) {
		rmdir(dir);
		umount(root);
		rmdir(root);
		SKIP(return, "no memory controller in cgroup v2");
	}

	big = mmap(NULL, PAGES(4 * pages), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(big, MAP_FAILED);
	fill(big, pages, 1);
	EXPECT_TRUE(read_anon(stat, &before));
	EXPECT_GE(before, (long)PAGES(pages / 2));
	EXPECT_EQ(relocate(big, pages, variant->flags, big + PAGES(2 * pages)),
		  big + PAGES(2 * pages));
	EXPECT_TRUE(read_anon(stat, &after));
	/* The figure is exact to a batch of changes for each CPU. */
	EXPECT_LT(labs(after - before), (long)PAGES(pages / 2));

	/* And it is given back when the memory is, from its new place. */
	ASSERT_EQ(munmap(big, PAGES(4 * pages)), 0);
	EXPECT_TRUE(read_anon(stat, &after));
	EXPECT_LT(after, before - (long)PAGES(pages / 2));

	EXPECT_TRUE(write_text(all, pid));
	rmdir(dir);
	umount(root);
	rmdir(root);
}

/*
 * Memory is short: let each allocation of a move fail, one at a time. Best
 * effort then is a plain move, which gets its memory as just one fails. To
 * insist fails, or works where what failed could be done without. Whatever
 * fails must leave all as it was, be it a VMA, a page table or a charge.
 */
#define FAULTS		"/sys/kernel/debug/"

static const struct {
	const char *path, *value;
} fault_settings[] = {
	{ FAULTS "failslab/ignore-gfp-wait",		"N" },
	{ FAULTS "failslab/verbose",			"0" },
	{ FAULTS "fail_page_alloc/ignore-gfp-wait",	"N" },
	{ FAULTS "fail_page_alloc/min-order",		"0" },
	{ FAULTS "fail_page_alloc/verbose",		"0" },
};

FIXTURE(nomem)
{
	struct arena arena;
	struct snapshot snap;
	char saved[ARRAY_SIZE(fault_settings)][32];
	char *left, *ptr, *to;
	size_t table;
	int nth;
};

FIXTURE_VARIANT(nomem)
{
	int flags;
};

FIXTURE_VARIANT_ADD(nomem, relocate)
{
	.flags = RELOCATE_ANON,
};

FIXTURE_VARIANT_ADD(nomem, must)
{
	.flags = MUST_RELOCATE_ANON,
};

#define NOMEM_NR	16
#define NOMEM_MORE	8

FIXTURE_SETUP(nomem)
{
	size_t i;

	self->nth = open("/proc/thread-self/fail-nth", O_RDWR);
	if (self->nth < 0)
		SKIP(return, "no fault injection, or not root");
	for (i = 0; i < ARRAY_SIZE(fault_settings); i++) {
		if (!read_file(fault_settings[i].path, self->saved[i],
			       sizeof(self->saved[i])))
			SKIP(return, "no failslab or no fail_page_alloc");
	}
	for (i = 0; i < ARRAY_SIZE(fault_settings); i++)
		ASSERT_TRUE(write_text(fault_settings[i].path,
				       fault_settings[i].value));

	/* Source and destination are in two page tables each. */
	ASSERT_EQ(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	self->table = psize() / sizeof(__u64);
	arena_init(&self->arena, 6 * self->table, self->table * psize());
	self->ptr = arena_at(&self->arena, 2 * self->table - NOMEM_NR / 2);
	self->to = arena_at(&self->arena, 4 * self->table - NOMEM_NR / 2);
	self->left = self->to - PAGES(4);
}

FIXTURE_TEARDOWN_PARENT(nomem)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fault_settings); i++) {
		if (self->saved[i][0])
			write_text(fault_settings[i].path, self->saved[i]);
	}
}

/* mremap() of self->ptr with the nth allocation failing. Did one fail? */
static bool remap_short_of_memory(FIXTURE_DATA(nomem) * self, size_t old_nr,
				  size_t new_nr, int flags, char *to, int nth,
				  void **res, int *error)
{
	char buf[32];
	ssize_t len;

	snprintf(buf, sizeof(buf), "%d", nth);
	if (write(self->nth, buf, strlen(buf)) < 0)
		ksft_exit_fail_perror("fail-nth");
	*res = sys_mremap(self->ptr, PAGES(old_nr), PAGES(new_nr),
			  MREMAP_MAYMOVE | flags, to);
	*error = errno;
	len = pread(self->nth, buf, sizeof(buf) - 1, 0);
	if (len < 0)
		ksft_exit_fail_perror("fail-nth");
	buf[len] = '\0';
	if (write(self->nth, "0", 1) != 1)
		ksft_exit_fail_perror("fail-nth");
	return !atoi(buf);
}

static bool move_short_of_memory(FIXTURE_DATA(nomem) * self, size_t old_nr,
				 size_t new_nr, int flags, int nth, void **res,
				 int *error)
{
	return remap_short_of_memory(self, old_nr, new_nr, flags | MREMAP_FIXED,
				     self->to, nth, res, error);
}

enum outcome {
	FAILED, PLAIN, RELOCATED, NOTHING_FAILED,
};

/* Does the trace event tell the same? */
static bool traced_outcome(FIXTURE_DATA(nomem) * self, enum outcome outcome)
{
	struct relocation rel;

	if (outcome == RELOCATED || outcome == NOTHING_FAILED)
		return relocated_as(NOMEM_NR, NOMEM_NR);
	if (!can_trace())
		return true;
	if (!trace_look(&rel) || rel.pages ||
	    rel.result != (outcome == FAILED ? -ENOMEM : 0))
		return false;
	/* What failed was for the move. */
	if (outcome == FAILED)
		return !rel.nr_refused;
	return refused_as("no_memory", self->to);
}

/* What others commit meanwhile is told apart by trying again. */
static enum outcome move_once(struct __test_metadata *_metadata,
			      FIXTURE_DATA(nomem) * self, int flags, int nth,
			      bool *books_balance)
{
	struct arena *arena = &self->arena;
	enum outcome outcome = FAILED;
	long committed, tables, grown;
	bool injected;
	void *res;
	int error;

	arena_unmap(arena, 0, arena->nr);
	fill(arena_map(arena, (self->left - arena->base) / psize(), 4), 4, 9);
	fill(arena_map(arena, (self->ptr - arena->base) / psize(), NOMEM_NR),
	     NOMEM_NR, 1);
	/*
	 * That it unmaps its destination is not to be seen in the snapshot. No
	 * other mapping may keep a page table there.
	 */
	ASSERT_EQ(munmap(self->to, PAGES(self->table + NOMEM_NR)), 0);
	snapshot_take(&self->snap, arena, self->ptr, NOMEM_NR);
	tables = status_kb("VmPTE");
	committed = meminfo_kb("Committed_AS");

	injected = move_short_of_memory(self, NOMEM_NR, NOMEM_NR + NOMEM_MORE,
					flags, nth, &res, &error);
	committed = meminfo_kb("Committed_AS") - committed;
	if (res == MAP_FAILED) {
		EXPECT_TRUE(injected);
		EXPECT_EQ(error, ENOMEM);
		EXPECT_TRUE(snapshot_same(&self->snap));
		EXPECT_TRUE(traced_outcome(self, FAILED));
		EXPECT_EQ(status_kb("VmPTE"), tables);
		EXPECT_TRUE(healthy(arena, self->ptr, NOMEM_NR, 1));
		*books_balance = !committed;
		return FAILED;
	}

	free(self->snap.entries);
	ASSERT_EQ(res, self->to);
	EXPECT_TRUE(all_zero(self->to + PAGES(NOMEM_NR), NOMEM_MORE));
	EXPECT_TRUE(healthy(arena, self->to, NOMEM_NR, 1));
	EXPECT_TRUE(healthy(arena, self->left, 4, 9));
	grown = PAGES(NOMEM_MORE) / 1024;
	*books_balance = committed == grown;
	if (!injected)
		outcome = NOTHING_FAILED;
	else if (fits_in_again(arena, self->to, NOMEM_NR + NOMEM_MORE))
		outcome = RELOCATED;
	else
		outcome = PLAIN;
	EXPECT_TRUE(traced_outcome(self, outcome));
	return outcome;
}

TEST_F(nomem, each_allocation)
{
	int nth, try, seen[NOTHING_FAILED + 1] = { 0 };
	enum outcome outcome = FAILED;
	bool balance;

	for (nth = 1; nth < 200 && outcome != NOTHING_FAILED; nth++) {
		for (try = 0, balance = false; try < 5 && !balance; try++)
			outcome = move_once(_metadata, self, variant->flags, nth,
					    &balance);
		EXPECT_TRUE(balance) {
			TH_LOG("commit charge, allocation %d, outcome %d", nth,
			       outcome);
		}
		seen[outcome]++;
	}
	TH_LOG("%d failed, %d moved plainly, %d relocated", seen[FAILED],
	       seen[PLAIN], seen[RELOCATED]);
	EXPECT_EQ(outcome, NOTHING_FAILED);
	EXPECT_TRUE(is_one_vma(&self->arena, self->left,
			       4 + NOMEM_NR + NOMEM_MORE));
	/* The destination's page tables and its VMA are among them. */
	EXPECT_GE(seen[FAILED], 2);
	EXPECT_EQ(seen[PLAIN] > 0, !(variant->flags & MUST_RELOCATE_ANON));
}

/*
 * Growth as hardened allocators do it, which take any error but ENOMEM for a
 * fatal one: into a mapping that they have just made between guards, behind
 * something else of theirs. What is to move is whole in one place or the other.
 */
TEST_F_TIMEOUT(nomem, grows_between_guards, 180)
{
	const size_t nr = NOMEM_NR + NOMEM_MORE;
	struct arena *arena = &self->arena;
	int nth, error, failed = 0, moved = 0;
	bool injected = true;
	void *res;

	for (nth = 1; nth < 200 && injected; nth++) {
		arena_unmap(arena, 0, arena->nr);
		fill(arena_map(arena, (self->left - arena->base) / psize(), 4), 4, 9);
		fill(arena_map(arena, (self->ptr - arena->base) / psize(), NOMEM_NR),
		     NOMEM_NR, 1);
		arena_map(arena, (self->to - arena->base) / psize(), nr);

		injected = move_short_of_memory(self, NOMEM_NR, nr, variant->flags,
						nth, &res, &error);
		EXPECT_TRUE(healthy(arena, self->left, 4, 9));
		if (res == MAP_FAILED) {
			EXPECT_TRUE(injected);
			EXPECT_EQ(error, ENOMEM);
			EXPECT_TRUE(healthy(arena, self->ptr, NOMEM_NR, 1));
			failed++;
			continue;
		}
		EXPECT_EQ(res, self->to);
		EXPECT_EQ(nr_vmas(arena, self->ptr, NOMEM_NR), 0);
		EXPECT_TRUE(healthy(arena, self->to, NOMEM_NR, 1));
		EXPECT_TRUE(all_zero(self->to + PAGES(NOMEM_NR), NOMEM_MORE));
		moved += injected;
	}
	TH_LOG("failed %d times, moved %d times", failed, moved);
	EXPECT_FALSE(injected);
	EXPECT_TRUE(is_one_vma(arena, self->left, 4 + nr));
	EXPECT_GT(failed + moved, 0);
}

/*
 * Several VMAs: those that have moved when memory runs out stay where they are
 * now, and the others where they were.
 */
#define NOMEM_VMAS		3

/* Returns how many have moved; each one is in one place, whole. */
static int count_moved(struct __test_metadata *_metadata,
		       FIXTURE_DATA(nomem) * self)
{
	struct arena *arena = &self->arena;
	int i, moved = 0;

	for (i = 0; i < NOMEM_VMAS; i++) {
		char *from = self->ptr + PAGES(NOMEM_MORE * i);
		char *to = self->to + PAGES(NOMEM_MORE * i);
		bool has_moved = nr_vmas(arena, to, NOMEM_MORE);

		EXPECT_EQ(nr_vmas(arena, from, NOMEM_MORE), !has_moved);
		EXPECT_TRUE(healthy(arena, has_moved ? to : from, NOMEM_MORE,
				    i + 1));
		/* In their order. */
		if (has_moved)
			EXPECT_EQ(moved, i);
		moved += has_moved;
	}
	return moved;
}

TEST_F(nomem, several_vmas)
{
	const size_t nr = NOMEM_VMAS * NOMEM_MORE;
	struct arena *arena = &self->arena;
	int seen[NOMEM_VMAS + 1] = { 0 };
	bool injected = true;
	int nth, moved, i, error;
	void *res;

	for (nth = 1; nth < 200 && injected; nth++) {
		arena_unmap(arena, 0, arena->nr);
		for (i = 0; i < NOMEM_VMAS; i++) {
			char *ptr = self->ptr + PAGES(NOMEM_MORE * i);

			fill(arena_map(arena, 0, NOMEM_MORE), NOMEM_MORE, i + 1);
			ASSERT_EQ(relocate(arena_at(arena, 0), NOMEM_MORE, 0,
					   ptr), ptr);
		}
		ASSERT_EQ(nr_vmas(arena, self->ptr, nr), NOMEM_VMAS);
		ASSERT_EQ(munmap(self->to, PAGES(self->table + nr)), 0);

		injected = move_short_of_memory(self, nr, nr, variant->flags, nth,
						&res, &error);
		moved = count_moved(_metadata, self);
		if (res != MAP_FAILED) {
			EXPECT_EQ(res, self->to);
			EXPECT_EQ(moved, NOMEM_VMAS);
			continue;
		}
		EXPECT_TRUE(injected);
		EXPECT_EQ(error, ENOMEM);
		EXPECT_LT(moved, NOMEM_VMAS);
		seen[moved]++;

		/* The rest of them follow when there is memory. */
		ASSERT_EQ(relocate(self->ptr + PAGES(NOMEM_MORE * moved),
				   nr - NOMEM_MORE * moved, MUST_RELOCATE_ANON,
				   self->to + PAGES(NOMEM_MORE * moved)),
			  self->to + PAGES(NOMEM_MORE * moved));
		ASSERT_EQ(sys_mremap(self->to, PAGES(nr), PAGES(nr),
				     MREMAP_MAYMOVE | MUST_RELOCATE_ANON, NULL),
			  self->to);
		EXPECT_TRUE(is_one_vma(arena, self->to, nr));
	}
	EXPECT_FALSE(injected);
	TH_LOG("failed with none moved %d times, one %d, two %d", seen[0], seen[1],
	       seen[2]);
	EXPECT_GT(seen[0], 0);
	EXPECT_GT(seen[1], 0);
	EXPECT_GT(seen[2], 0);
}

/*
 * A source that shrinks, and a destination where something is: when it fails
 * for memory, the one may have shrunk, and the other be gone, as with a plain
 * mremap(). What was to move is at its place.
 */
TEST_F(nomem, shrinks_over_something)
{
	struct arena *arena = &self->arena;
	const size_t nr = NOMEM_NR - NOMEM_MORE;
	int nth, error, failed = 0, shrunk = 0, lost = 0;
	char *tail = self->ptr + PAGES(nr), *behind = self->to + PAGES(nr);
	bool injected = true, has_tail, has_other;
	void *res;

	for (nth = 1; nth < 200 && injected; nth++) {
		arena_unmap(arena, 0, arena->nr);
		fill(arena_map(arena, (self->to - arena->base) / psize(),
			       NOMEM_NR), NOMEM_NR, 5);
		fill(arena_map(arena, (self->ptr - arena->base) / psize(),
			       NOMEM_NR), NOMEM_NR, 1);

		injected = move_short_of_memory(self, NOMEM_NR, nr, variant->flags,
						nth, &res, &error);
		EXPECT_TRUE(healthy_from(arena, behind, NOMEM_NR - nr, 5, nr));
		if (res != MAP_FAILED) {
			EXPECT_EQ(res, self->to);
			EXPECT_EQ(nr_vmas(arena, self->ptr, NOMEM_NR), 0);
			EXPECT_TRUE(healthy(arena, self->to, nr, 1));
			continue;
		}
		EXPECT_TRUE(injected);
		EXPECT_EQ(error, ENOMEM);
		failed++;
		EXPECT_TRUE(healthy(arena, self->ptr, nr, 1));
		has_tail = nr_vmas(arena, tail, NOMEM_NR - nr);
		if (has_tail)
			EXPECT_TRUE(healthy_from(arena, tail, NOMEM_NR - nr, 1,
						 nr));
		has_other = nr_vmas(arena, self->to, nr);
		if (has_other)
			EXPECT_TRUE(healthy(arena, self->to, nr, 5));
		shrunk += !has_tail;
		lost += !has_other;

		ASSERT_EQ(relocate(self->ptr, nr, MUST_RELOCATE_ANON, self->to),
			  self->to);
		EXPECT_TRUE(is_one_vma(arena, self->to, NOMEM_NR));
		EXPECT_TRUE(healthy(arena, self->to, nr, 1));
	}
	EXPECT_FALSE(injected);
	TH_LOG("failed %d times, %d with the source shrunk, %d with the destination gone",
	       failed, shrunk, lost);
	if (variant->flags & MUST_RELOCATE_ANON) {
		EXPECT_GT(shrunk, 0);
		EXPECT_GT(lost, 0);
	}
}

/*
 * In place: pieces that plain moves have left, one of which is only in part in the
 * range. As many as there was memory for are relocated, from the first on.
 *
 *   [AAAAAAAA][BBBBBBBB][CCCC|CCCC]
 */
TEST_F_TIMEOUT(nomem, in_place, 180)
{
	const size_t all = NOMEM_VMAS * NOMEM_MORE, nr = all - NOMEM_MORE / 2;
	struct arena *arena = &self->arena;
	int nth, i, error, failed = 0;
	bool injected = true;
	size_t vmas;
	void *res;

	for (nth = 1; nth < 200 && injected; nth++) {
		arena_unmap(arena, 0, arena->nr);
		for (i = 0; i < NOMEM_VMAS; i++) {
			char *ptr = self->ptr + PAGES(NOMEM_MORE * i);

			fill(arena_map(arena, 0, NOMEM_MORE), NOMEM_MORE, i + 1);
			ASSERT_EQ(relocate(arena_at(arena, 0), NOMEM_MORE, 0,
					   ptr), ptr);
		}
		injected = remap_short_of_memory(self, nr, nr, variant->flags, NULL,
						 nth, &res, &error);
		vmas = nr_vmas(arena, self->ptr, all);
		EXPECT_GE(vmas, 2);
		/* If B stays, C in the range does not merge, and is cut for it. */
		EXPECT_LE(vmas, NOMEM_VMAS + 1);
		if (res == MAP_FAILED) {
			EXPECT_TRUE(injected);
			EXPECT_TRUE(variant->flags & MUST_RELOCATE_ANON);
			EXPECT_EQ(error, ENOMEM);
			failed++;
		} else {
			EXPECT_EQ(res, self->ptr);
		}
		for (i = 0; i < NOMEM_VMAS; i++)
			EXPECT_TRUE(healthy(arena, self->ptr +
					    PAGES(NOMEM_MORE * i), NOMEM_MORE,
					    i + 1));

		/* Nothing stands in the way of doing it all, once there is memory. */
		ASSERT_EQ(sys_mremap(self->ptr, PAGES(all), PAGES(all),
				     MREMAP_MAYMOVE | variant->flags, NULL),
			  self->ptr);
		ASSERT_EQ(nr_vmas(arena, self->ptr, all), 1);
	}
	EXPECT_FALSE(injected);
	TH_LOG("%d allocations, of which %d made the call fail", nth - 2, failed);
	EXPECT_GE(nth, 6);
	/* To take apart the VMA that the end of the range cuts. */
	if (variant->flags & MUST_RELOCATE_ANON)
		EXPECT_GE(failed, 3);
}

TEST_HARNESS_MAIN
