// SPDX-License-Identifier: GPL-2.0-only
/*
 * MREMAP_RELOCATE_ANON and MREMAP_MUST_RELOCATE_ANON: what has been swapped
 * out, to devices whose behaviour matters.
 *
 * The devices are made here, so that a test knows where its pages are and can
 * do to the device what it likes: zram, which is read and written without
 * waiting, a loop device, which is not, and a loop device whose writes can be
 * held up for as long as a test wants.
 */
#include "kselftest_harness.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <linux/fs.h>
#include <unistd.h>
#include "mremap_relocate_util.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT		21
#endif

#define KPF_WRITEBACK		BIT_ULL(8)
#define KPF_KSM			BIT_ULL(21)
/* For anonymous pages, this is PageAnonExclusive. Of a folio, the head's. */
#define KPF_OWNER_2		BIT_ULL(34)

/* Of a pagemap entry that is swapped out: which device? */
#define ENTRY_SWAP_TYPE		0x1full

/* Enough for can_swap() even if there is no other device. */
#define DEVICE_SIZE		(128ul << 20)

#define ZSWAP_ENABLED		"/sys/module/zswap/parameters/enabled"
#define KSM_RUN			"/sys/kernel/mm/ksm/run"

#define PATIENCE		1000

/* Swap devices. */
enum kind {
	ZRAM,
	LOOP,
	/* A loop device with stable writes, which FIFREEZE holds up. */
	STALLED,
};

struct device {
	char path[32];		/* "" if there is none */
	char mount[32];		/* What to freeze, "" if nothing */
	int zram;		/* -1 if it is none */
	__u64 type;		/* As SLOT_TYPE has it */
};

static int temp_file(const char *dir, size_t size)
{
	char name[64];
	int fd;

	snprintf(name, sizeof(name), "%s/swap.XXXXXX", dir);
	fd = mkstemp(name);
	if (fd < 0)
		return -1;
	unlink(name);
	if (ftruncate(fd, size)) {
		close(fd);
		return -1;
	}
	return fd;
}

/*
 * Make a loop device that vanishes with its last user. Returns a descriptor
 * that keeps it, not open for writing as then it could not be mounted.
 */
static int loop_open(char *path, size_t len, const char *dir, size_t size)
{
	struct loop_config config = { .info.lo_flags = LO_FLAGS_AUTOCLEAR };
	int control, loop, nr, fd = -1, try;

	control = open("/dev/loop-control", O_RDWR);
	if (control < 0)
		return -1;
	config.fd = temp_file(dir, size);
	/* Another process may be faster to take the device that was free. */
	for (try = 0; config.fd >= 0 && fd < 0 && try < PATIENCE; try++) {
		nr = ioctl(control, LOOP_CTL_GET_FREE);
		if (nr < 0)
			break;
		snprintf(path, len, "/dev/loop%d", nr);
		loop = open(path, O_RDWR | O_CLOEXEC);
		if (loop < 0)
			break;
		if (!ioctl(loop, LOOP_CONFIGURE, &config))
			fd = open(path, O_RDONLY | O_CLOEXEC);
		close(loop);
	}
	if (fd < 0)
		path[0] = '\0';
	if (config.fd >= 0)
		close(config.fd);
	close(control);
	return fd;
}

static bool can_add_loop(struct device *dev)
{
	return loop_open(dev->path, sizeof(dev->path), ".", DEVICE_SIZE) >= 0;
}

static bool mount_new(const char *path, char *dir, size_t len)
{
	char cmd[96];

	snprintf(cmd, sizeof(cmd), "mkfs.ext4 -q -F %s >/dev/null 2>&1", path);
	if (system(cmd))
		return false;
	snprintf(dir, len, "/tmp/swap.XXXXXX");
	if (mkdtemp(dir)) {
		if (!mount(path, dir, "ext4", 0, NULL))
			return true;
		rmdir(dir);
	}
	dir[0] = '\0';
	return false;
}

/* A loop device on a file in a file system on a loop device. */
static bool can_add_stalled(struct device *dev)
{
	bool mounted;
	char path[64];
	int fd;

	fd = loop_open(path, sizeof(path), ".", 2 * DEVICE_SIZE);
	if (fd < 0)
		return false;
	mounted = mount_new(path, dev->mount, sizeof(dev->mount));
	close(fd);
	if (!mounted || loop_open(dev->path, sizeof(dev->path), dev->mount,
				  DEVICE_SIZE) < 0)
		return false;
	snprintf(path, sizeof(path), "/sys/block/%s/queue/stable_writes",
		 strrchr(dev->path, '/') + 1);
	return !write_sysfs(path, 1);
}

static bool can_add_zram(struct device *dev)
{
	char buf[64];

	if (access("/sys/class/zram-control", F_OK) &&
	    system("modprobe -q zram num_devices=0 >/dev/null 2>&1"))
		return false;
	if (!read_file("/sys/class/zram-control/hot_add", buf, sizeof(buf)))
		return false;
	dev->zram = atoi(buf);
	snprintf(dev->path, sizeof(dev->path), "/dev/zram%d", dev->zram);
	snprintf(buf, sizeof(buf), "/sys/block/zram%d/disksize", dev->zram);
	return !write_sysfs(buf, DEVICE_SIZE);
}

/* What mkswap does. */
static bool write_swap_header(const char *path)
{
	char *header = calloc(1, psize());
	__u32 *info = (__u32 *)(header + 1024);
	int fd = open(path, O_RDWR);
	bool ret;

	info[0] = 1;				/* version */
	info[1] = DEVICE_SIZE / psize() - 1;	/* last page */
	memcpy(header + psize() - 10, "SWAPSPACE2", 10);
	ret = pwrite(fd, header, psize(), 0) == psize() && !fsync(fd);
	close(fd);
	free(header);
	return ret;
}

/* Preferred to all devices but those that are made here. */
static bool device_on(struct device *dev)
{
	return !swapon(dev->path, SWAP_FLAG_PREFER | SWAP_FLAG_PRIO_MASK);
}

/* How much of it is in use? */
static long device_used_kb(struct device *dev)
{
	char line[256], path[128];
	long used, ret = 0;
	FILE *file;

	file = fopen("/proc/swaps", "r");
	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%127s %*s %*s %ld", path, &used) == 2 &&
		    !strcmp(path, dev->path))
			ret = used;
	}
	fclose(file);
	return ret;
}

static bool device_freeze(struct device *dev)
{
	int fd = open(dev->mount, O_RDONLY);
	bool ret = !ioctl(fd, FIFREEZE, 0);

	close(fd);
	return ret;
}

static bool device_thaw(struct device *dev)
{
	int fd = open(dev->mount, O_RDONLY);
	bool ret = !ioctl(fd, FITHAW, 0);

	close(fd);
	return ret;
}

/* Returns NULL, or why it cannot be made: call device_del() all the same. */
static const char *device_add(struct device *dev, enum kind kind)
{
	dev->path[0] = '\0';
	dev->mount[0] = '\0';
	dev->zram = -1;

	if (kind == ZRAM && !can_add_zram(dev))
		return "no zram device";
	if (kind == LOOP && !can_add_loop(dev))
		return "no loop device";
	if (kind == STALLED && !can_add_stalled(dev))
		return "no loop device on a file system that can be frozen";
	if (!write_swap_header(dev->path) || !device_on(dev))
		return "cannot swap to the device";
	return NULL;
}

/* Loop devices go with the process that made them, and with these uses. */
static void device_del(struct device *dev)
{
	char id[16];
	int fd, try;

	if (dev->mount[0])
		device_thaw(dev);
	if (dev->path[0])
		swapoff(dev->path);
	if (dev->zram >= 0) {
		snprintf(id, sizeof(id), "%d", dev->zram);
		fd = open("/sys/class/zram-control/hot_remove", O_WRONLY);
		/* It is busy while somebody has a look at what is new. */
		for (try = 0; try < PATIENCE; try++) {
			if (write(fd, id, strlen(id)) > 0 || errno != EBUSY)
				break;
			usleep(1000);
		}
		close(fd);
	}
	if (dev->mount[0]) {
		umount2(dev->mount, MNT_DETACH);
		rmdir(dev->mount);
	}
}

/* The range under test, and where it is swapped to. */
struct range {
	struct arena arena;
	struct snapshot snap;
	struct device dev;
	size_t unit;			/* pages of a folio */
	size_t nr;
	char *left, *ptr, *to;
	__u64 entries[1024];
	bool zswap, thp, ksm;		/* Is there something to put back? */
	struct thp_settings saved_thp;
	unsigned long saved_ksm;
};

#define NR_LEFT			4
#define NR_SMALL		32

static bool is_on_device(struct range *range, char *ptr, size_t nr)
{
	return count_entries(&range->arena, ptr, nr, PM_SWAP | ENTRY_SWAP_TYPE,
			     PM_SWAP | range->dev.type) == nr;
}

/*
 * Whatever the priorities, swap entries come first of all from the cluster that
 * this CPU has used last, for folios of this size. Use it up. Then see that the
 * next folio goes to our device, and how pagemap says so.
 */
static bool is_device_used(struct range *range)
{
	const size_t table = HPAGE_SIZE / psize(), nr = 2 * table;
	struct arena *arena = &range->arena;
	char *ptr = arena_map(arena, 8 * table, nr);
	long used;

	fill(ptr, nr, 7);
	if (pageout(arena, ptr + PAGES(range->unit), nr - range->unit,
		    nr - range->unit) != nr - range->unit)
		return false;
	used = device_used_kb(&range->dev);
	if (pageout(arena, ptr, range->unit, range->unit) != range->unit)
		return false;
	used = device_used_kb(&range->dev) - used;
	read_entries(arena, ptr, 1, range->entries);
	range->dev.type = range->entries[0] & ENTRY_SWAP_TYPE;
	arena_unmap(arena, 8 * table, nr);
	return used == PAGES(range->unit) / 1024;
}

static bool is_ksm(struct range *range, char *ptr)
{
	return page_flags(&range->arena, ptr) & KPF_KSM;
}

static bool set_folio_size(struct range *range, int order)
{
	if (!order)
		return !prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	range->thp = thp_set_order(order, &range->saved_thp);
	return range->thp;
}

static void range_teardown(struct range *range)
{
	device_del(&range->dev);
	if (range->thp)
		thp_write_settings(&range->saved_thp);
	if (range->ksm)
		write_num(KSM_RUN, range->saved_ksm);
	if (range->zswap)
		write_file(ZSWAP_ENABLED, "Y", 2);
}

/*
 * A neighbour of the place that the range is to move to. Keep khugepaged away
 * from both, see no_more_huge() in mremap_relocate_pages.
 */
static void map_left(struct range *range, size_t page)
{
	struct arena *arena = &range->arena;

	range->to = arena_at(arena, page);
	range->left = arena_map(arena, page - NR_LEFT, NR_LEFT);
	if (range->unit > 1)
		madvise(range->left, PAGES(NR_LEFT), MADV_NOHUGEPAGE);
	fill(range->left, NR_LEFT, 9);
}

static const char *try_setup(struct range *range, enum kind kind, int order)
{
	const size_t table = HPAGE_SIZE / psize();
	struct arena *arena = &range->arena;
	char enabled[4] = "";
	const char *why;
	size_t i;

	if (geteuid())
		return "only root may make swap devices";
	arena_init(arena, 10 * table, HPAGE_SIZE);
	if (arena->kpageflags < 0)
		return "cannot read /proc/kpageflags";

	/* What zswap takes never gets to the device. */
	read_file(ZSWAP_ENABLED, enabled, sizeof(enabled));
	if (enabled[0] == 'Y') {
		range->zswap = true;
		write_file(ZSWAP_ENABLED, "N", 2);
	}
	why = device_add(&range->dev, kind);
	if (why)
		return why;
	if (!set_folio_size(range, order))
		return "no folios of this size";
	range->unit = 1ul << order;
	if (!is_device_used(range))
		return "the kernel swaps to another device";

	/*
	 * Most tests move ptr to the right of left, to the start of a table:
	 *
	 *	..[B..B]..[AAAA]........   ->   ..______..[AAAAB..B]..
	 */
	range->nr = order ? 2 * range->unit : NR_SMALL;
	range->ptr = arena_map(arena, table, range->nr);
	fill(range->ptr, range->nr, 1);
	for (i = 0; i < range->nr; i += range->unit) {
		if (folio_pages(arena, range->ptr + PAGES(i)) != range->unit)
			return "got no folios of this size";
	}
	if (order)
		madvise(range->ptr, PAGES(range->nr), MADV_NOHUGEPAGE);
	map_left(range, 4 * table);
	return NULL;
}

/* Returns NULL, or why there is nothing to test. */
static const char *range_setup(struct range *range, enum kind kind, int order)
{
	const char *why;

	range->dev.zram = -1;
	why = try_setup(range, kind, order);
	if (why)
		range_teardown(range);
	return why;
}

/* How many folios of this size have been written to swap in one piece? */
static unsigned long nr_written_whole(struct range *range)
{
	char path[128];

	snprintf(path, sizeof(path),
		 "/sys/kernel/mm/transparent_hugepage/hugepages-%zukB/stats/swpout",
		 PAGES(range->unit) / 1024);
	return read_num(path);
}

/* Swap it out to the device, each folio whole. */
static bool swap_out(struct range *range)
{
	unsigned long before = 0, after = 0;

	if (range->unit > 1)
		before = nr_written_whole(range);
	if (pageout(&range->arena, range->ptr, range->nr, range->nr) != range->nr)
		return false;
	if (range->unit > 1)
		after = nr_written_whole(range);
	if (!is_on_device(range, range->ptr, range->nr))
		return false;
	read_entries(&range->arena, range->ptr, range->nr, range->entries);
	return range->unit == 1 || after - before >= range->nr / range->unit;
}

static bool is_merged(struct range *range)
{
	return is_one_vma(&range->arena, range->left, NR_LEFT + range->nr);
}

/* Is it, wherever it is now, and is its neighbour? */
static bool both_healthy(struct range *range, char *ptr, unsigned long seed)
{
	return healthy(&range->arena, ptr, range->nr, seed) &&
	       healthy(&range->arena, range->left, NR_LEFT, 9);
}

/* Swapped out, with or without a trace of it left in memory. */
FIXTURE(swap)
{
	struct range range;
	struct device other;		/* For the tests that want two */
};

FIXTURE_VARIANT(swap)
{
	enum kind kind;
	int order;
};

FIXTURE_VARIANT_ADD(swap, zram)
{
	.kind = ZRAM,
};

FIXTURE_VARIANT_ADD(swap, zram_64kB)
{
	.kind = ZRAM,
	.order = 4,
};

FIXTURE_VARIANT_ADD(swap, zram_2MB)
{
	.kind = ZRAM,
	.order = 9,
};

FIXTURE_VARIANT_ADD(swap, loop)
{
	.kind = LOOP,
};

FIXTURE_VARIANT_ADD(swap, loop_64kB)
{
	.kind = LOOP,
	.order = 4,
};

FIXTURE_VARIANT_ADD(swap, loop_2MB)
{
	.kind = LOOP,
	.order = 9,
};

FIXTURE_SETUP(swap)
{
	const char *why;

	self->other.zram = -1;
	why = range_setup(&self->range, variant->kind, variant->order);
	if (why)
		SKIP(return, "%s", why);
}

/* Even if the test was killed: a swap device is not left behind. */
FIXTURE_TEARDOWN_PARENT(swap)
{
	device_del(&self->other);
	range_teardown(&self->range);
}

/* Move what is swapped out, read it back in its new place. */
static void move_swapped_out(struct __test_metadata *_metadata,
			     struct range *range, int flags)
{
	struct arena *arena = &range->arena;
	const size_t nr = range->nr;
	char *to = range->to;

	if (!swap_out(range))
		SKIP(return, "not swapped out whole");
	ASSERT_EQ(relocate(range->ptr, nr, flags, to), to);
	EXPECT_TRUE(same_entries(arena, to, nr, range->entries));
	EXPECT_TRUE(is_merged(range));

	/* It may come back as a large folio, where that is allowed. */
	if (range->unit > 1) {
		madvise(to, PAGES(nr), MADV_HUGEPAGE);
		FORCE_READ(*to);
		TH_LOG("read back in a folio of %zu pages",
		       folio_pages(arena, to));
		madvise(to, PAGES(nr), MADV_NOHUGEPAGE);
	}
	EXPECT_TRUE(is_merged(range));
	EXPECT_TRUE(both_healthy(range, to, 1));
}

TEST_F(swap, relocate)
{
	move_swapped_out(_metadata, &self->range, RELOCATE_ANON);
}

TEST_F(swap, must)
{
	move_swapped_out(_metadata, &self->range, MUST_RELOCATE_ANON);
}

/* To where no large folio can be aligned. */
TEST_F(swap, one_page_off)
{
	struct range *range = &self->range;
	const size_t page = (range->to - range->arena.base) / psize();

	arena_unmap(&range->arena, page - NR_LEFT, NR_LEFT);
	map_left(range, page + 1);
	move_swapped_out(_metadata, range, MUST_RELOCATE_ANON);
}

/*
 * swapoff() looks for the entries in all page tables. What it has read in must
 * be found from the page, at the new place.
 */
TEST_F(swap, swapoff_afterwards)
{
	struct range *range = &self->range;
	struct arena *arena = &range->arena;
	const size_t nr = range->nr;

	if (!swap_out(range))
		SKIP(return, "not swapped out whole");
	ASSERT_EQ(relocate(range->ptr, nr, MUST_RELOCATE_ANON, range->to),
		  range->to);
	ASSERT_EQ(swapoff(range->dev.path), 0);
	EXPECT_EQ(nr_present(arena, range->to, nr), nr);
	EXPECT_TRUE(is_merged(range));
	EXPECT_TRUE(intact(range->to, nr, 1));

	/* So that there is swap to be healthy with. */
	ASSERT_TRUE(device_on(&range->dev));
	EXPECT_TRUE(both_healthy(range, range->to, 1));
}

/* Refused while a child has it, too, and no longer when the child is gone. */
static void move_shared(struct __test_metadata *_metadata, struct range *range)
{
	/* What is in the range, the child would change for us as well. */
	struct arena arena = range->arena;
	char *ptr = range->ptr, *to = range->to;
	const size_t nr = range->nr;
	struct step step;
	pid_t pid;

	pid = share_with_child(&arena, ptr, nr, 0, 1, &step);

	snapshot_take(&range->snap, &arena, ptr, nr);
	EXPECT_TRUE(is_refused(&range->snap, ptr, nr, MUST_RELOCATE_ANON, to));
	EXPECT_TRUE(refused_as("shared_page", ptr));
	tell_child(&step);
	EXPECT_TRUE(reap(pid));

	EXPECT_TRUE(same_entries(&arena, ptr, nr, range->entries));
	ASSERT_EQ(relocate(ptr, nr, MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(is_merged(range));
}

TEST_F(swap, shared_with_child)
{
	struct range *range = &self->range;

	if (!swap_out(range))
		SKIP(return, "not swapped out whole");
	move_shared(_metadata, range);
	EXPECT_TRUE(both_healthy(range, range->to, 1));
}

/* Gone without a look at it: one user is left, which no PTE says of itself. */
TEST_F(swap, child_is_gone)
{
	struct range *range = &self->range;
	pid_t pid;

	if (!swap_out(range))
		SKIP(return, "not swapped out whole");
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid)
		_exit(0);
	EXPECT_TRUE(reap(pid));
	ASSERT_EQ(relocate(range->ptr, range->nr, MUST_RELOCATE_ANON,
			   range->to), range->to);
	EXPECT_TRUE(is_merged(range));
	EXPECT_TRUE(both_healthy(range, range->to, 1));
}

/*
 * A thread that takes two devices away in turn, so that what is swapped out
 * goes from one to the other for ever.
 */
struct swapper {
	pthread_t thread;
	struct device *devs[2];
	unsigned long done;		/* devices that were in use */
	bool stop, failed;
};

static void *swapper(void *arg)
{
	struct swapper *swap = arg;
	cpu_set_t set;
	int i;

	/* Run elsewhere than the thread that moves the range. */
	memset(&set, 0xff, sizeof(set));
	sched_setaffinity(0, sizeof(set), &set);

	for (i = 0; !__atomic_load_n(&swap->stop, __ATOMIC_ACQUIRE); i ^= 1) {
		bool used = device_used_kb(swap->devs[i]) > 0;

		if (swapoff(swap->devs[i]->path) ||
		    !device_on(swap->devs[i])) {
			__atomic_store_n(&swap->failed, true, __ATOMIC_RELEASE);
			break;
		}
		if (used)
			__atomic_fetch_add(&swap->done, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static unsigned long swapper_done(struct swapper *swap)
{
	return __atomic_load_n(&swap->done, __ATOMIC_ACQUIRE);
}

static bool swapper_failed(struct swapper *swap)
{
	return __atomic_load_n(&swap->failed, __ATOMIC_ACQUIRE);
}

TEST_F(swap, swapoff_in_a_loop)
{
	struct range *range = &self->range;
	struct swapper swap = { .devs = { &range->dev, &self->other } };
	char *ptr = range->ptr, *to = range->to;
	const size_t nr = range->nr;
	unsigned long moves;
	const char *why;
	size_t page;

	why = device_add(&self->other, variant->kind);
	if (why)
		SKIP(return, "%s", why);
	ASSERT_EQ(pthread_create(&swap.thread, NULL, swapper, &swap), 0);
	for (moves = 0; moves < 40 || swapper_done(&swap) < 40; moves += 2) {
		ASSERT_FALSE(swapper_failed(&swap));
		ASSERT_EQ(madvise(ptr, PAGES(nr), MADV_PAGEOUT), 0);
		ASSERT_EQ(relocate(ptr, nr, MUST_RELOCATE_ANON, to), to);
		ASSERT_TRUE(is_merged(range));
		ASSERT_EQ(madvise(to, PAGES(nr), MADV_PAGEOUT), 0);
		ASSERT_EQ(relocate(to, nr, MUST_RELOCATE_ANON, ptr), ptr);
		ASSERT_TRUE(is_one_vma(&range->arena, ptr, nr));
		page = moves % nr;
		ASSERT_TRUE(intact_from(ptr + PAGES(page), 1, 1, page));
	}
	__atomic_store_n(&swap.stop, true, __ATOMIC_RELEASE);
	ASSERT_EQ(pthread_join(swap.thread, NULL), 0);
	EXPECT_FALSE(swap.failed);
	TH_LOG("%lu times swapped off during %lu moves", swap.done, moves);
	EXPECT_TRUE(both_healthy(range, ptr, 1));
}

/*
 * While writes are held up, what has been reclaimed stays in the swap cache,
 * and under writeback. Read again, it is mapped as it is. As it must not be
 * written to meanwhile, it is no longer marked as exclusive.
 */
FIXTURE(stalled)
{
	struct range range;
};

FIXTURE_VARIANT(stalled)
{
	int order;
};

FIXTURE_VARIANT_ADD(stalled, small)
{
};

FIXTURE_VARIANT_ADD(stalled, 64kB)
{
	.order = 4,
};

FIXTURE_VARIANT_ADD(stalled, 2MB)
{
	.order = 9,
};

FIXTURE_SETUP(stalled)
{
	const char *why = range_setup(&self->range, STALLED, variant->order);

	if (why)
		SKIP(return, "%s", why);
}

FIXTURE_TEARDOWN_PARENT(stalled)
{
	range_teardown(&self->range);
}

/* Of how many pages have these flags this value? */
static size_t count_flags(struct arena *arena, char *ptr, size_t nr, __u64 mask,
			  __u64 value)
{
	size_t i, count = 0;

	for (i = 0; i < nr; i++)
		count += (page_flags(arena, ptr + PAGES(i)) & mask) == value;
	return count;
}

/* Reclaim it, all but for the end of the writeback. */
static bool start_writeback(struct range *range)
{
	const size_t nr = range->nr;

	return device_freeze(&range->dev) && swap_out(range) &&
	       nr_swap_cached(&range->arena, range->ptr, nr) == nr;
}

/* And map it again. Is it as above? */
static bool lose_exclusive(struct range *range)
{
	const __u64 mask = KPF_WRITEBACK | KPF_OWNER_2;
	struct arena *arena = &range->arena;
	const size_t nr = range->nr;

	if (count_flags(arena, range->ptr, nr, mask, KPF_OWNER_2) != nr)
		return false;
	if (!start_writeback(range))
		return false;
	force_read_pages(range->ptr, nr, psize());
	read_entries(arena, range->ptr, nr, range->entries);
	return count_flags(arena, range->ptr, nr, mask, KPF_WRITEBACK) == nr;
}

TEST_F(stalled, exclusive_lost)
{
	struct range *range = &self->range;
	struct arena *arena = &range->arena;
	const size_t nr = range->nr;
	char *to = range->to;

	if (!lose_exclusive(range))
		SKIP(return, "not mapped, not exclusive, under writeback");
	ASSERT_EQ(relocate(range->ptr, nr, MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(is_merged(range));
	EXPECT_TRUE(same_entries(arena, to, nr, range->entries));
	EXPECT_EQ(folio_pages(arena, to), range->unit);
	EXPECT_EQ(count_flags(arena, to, nr, KPF_WRITEBACK | KPF_OWNER_2,
			      KPF_WRITEBACK), nr);
	EXPECT_TRUE(intact(to, nr, 1));
	ASSERT_TRUE(device_thaw(&range->dev));
	EXPECT_TRUE(both_healthy(range, to, 1));
}

/* A write in its new place gets a copy, as the page must not change. */
TEST_F(stalled, written_to)
{
	struct range *range = &self->range;
	struct arena *arena = &range->arena;
	const size_t nr = range->nr;
	char *to = range->to;

	if (!lose_exclusive(range))
		SKIP(return, "not mapped, not exclusive, under writeback");
	ASSERT_EQ(relocate(range->ptr, nr, MUST_RELOCATE_ANON, to), to);
	fill(to, nr, 2);
	EXPECT_TRUE(is_merged(range));
	EXPECT_EQ(count_flags(arena, to, nr, KPF_WRITEBACK, 0), nr);
	ASSERT_TRUE(device_thaw(&range->dev));
	EXPECT_TRUE(both_healthy(range, to, 2));
}

/* Exclusive or not, it is the number of users that counts. */
TEST_F(stalled, shared_with_child)
{
	struct range *range = &self->range;

	if (!lose_exclusive(range))
		SKIP(return, "not mapped, not exclusive, under writeback");
	move_shared(_metadata, range);
	ASSERT_TRUE(device_thaw(&range->dev));
	EXPECT_TRUE(both_healthy(range, range->to, 1));
}

/*
 * Moved before it is mapped again. A small folio that does not belong where it
 * is read, as it was not re-homed, would be copied: which is counted.
 */
TEST_F(stalled, swap_cached)
{
	struct range *range = &self->range;
	struct arena *arena = &range->arena;
	const size_t nr = range->nr;
	char *to = range->to;
	long copied = vm_event("ksm_swpin_copy");

	if (copied < 0)
		SKIP(return, "no KSM, which does the copying");
	if (!start_writeback(range))
		SKIP(return, "not in the swap cache, under writeback");
	ASSERT_EQ(relocate(range->ptr, nr, MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(same_entries(arena, to, nr, range->entries));
	EXPECT_EQ(nr_swap_cached(arena, to, nr), nr);
	EXPECT_TRUE(is_merged(range));

	EXPECT_TRUE(intact(to, nr, 1));
	EXPECT_EQ(vm_event("ksm_swpin_copy"), copied);
	EXPECT_EQ(count_flags(arena, to, nr, KPF_WRITEBACK, KPF_WRITEBACK), nr);
	ASSERT_TRUE(device_thaw(&range->dev));
	EXPECT_TRUE(both_healthy(range, to, 1));
}

/*
 * A page that KSM has made of two, in the swap cache, held there by a stalled
 * device. Nothing un-shares it as long as it is not mapped.
 */
FIXTURE(ksm)
{
	struct range range;
};

FIXTURE_SETUP(ksm)
{
	struct range *range = &self->range;
	const char *why;

	if (access(KSM_RUN, W_OK))
		SKIP(return, "no KSM");
	why = range_setup(range, STALLED, 0);
	if (why)
		SKIP(return, "%s", why);

	range->saved_ksm = read_num(KSM_RUN);
	range->ksm = true;
	memcpy(range->ptr + PAGES(1), range->ptr, psize());
	if (!madvise(range->ptr, PAGES(range->nr), MADV_MERGEABLE) &&
	    !madvise(range->left, PAGES(NR_LEFT), MADV_MERGEABLE))
		ksm_start();
	/* Let it neither go on nor take back what it did. */
	write_num(KSM_RUN, 0);
	if (!is_ksm(range, range->ptr))
		why = "KSM did not merge";
	/* The other one goes: nobody else has the page. */
	madvise(range->ptr + PAGES(1), PAGES(1), MADV_DONTNEED);
	if (!why && (!device_freeze(&range->dev) ||
		     pageout(&range->arena, range->ptr, 1, 1) != 1 ||
		     nr_swap_cached(&range->arena, range->ptr, 1) != 1))
		why = "the page does not stay in the swap cache";
	if (why) {
		range_teardown(range);
		SKIP(return, "%s", why);
	}
}

FIXTURE_TEARDOWN_PARENT(ksm)
{
	range_teardown(&self->range);
}

static bool ksm_intact(struct range *range, char *ptr)
{
	return intact(ptr, 1, 1) && all_zero(ptr + PAGES(1), 1) &&
	       intact_from(ptr + PAGES(2), range->nr - 2, 1, 2);
}

/*
 * The range cannot be relocated for its first page, and can be moved. Written
 * to, the page is one like any other.
 */
static void expect_ksm_refused(struct __test_metadata *_metadata,
			       struct range *range)
{
	struct arena *arena = &range->arena;
	char *ptr = range->ptr, *to = range->to;
	const size_t nr = range->nr;

	read_entries(arena, ptr, nr, range->entries);
	snapshot_take(&range->snap, arena, ptr, nr);
	EXPECT_TRUE(is_refused(&range->snap, ptr, nr, MUST_RELOCATE_ANON, to));
	EXPECT_TRUE(refused_as("ksm", ptr));

	ASSERT_EQ(relocate(ptr, nr, RELOCATE_ANON, to), to);
	EXPECT_TRUE(refused_as("ksm", to));
	EXPECT_TRUE(same_entries(arena, to, nr, range->entries));
	EXPECT_EQ(nr_vmas(arena, range->left, NR_LEFT + nr), 2);
	EXPECT_TRUE(ksm_intact(range, to));
	EXPECT_TRUE(is_ksm(range, to));
	ASSERT_TRUE(device_thaw(&range->dev));
	EXPECT_TRUE(ksm_intact(range, to));

	fill(to, nr, 2);
	EXPECT_TRUE(both_healthy(range, to, 2));
	ASSERT_EQ(relocate(to, nr, MUST_RELOCATE_ANON, ptr), ptr);
	ASSERT_EQ(relocate(ptr, nr, MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(is_merged(range));
	EXPECT_TRUE(both_healthy(range, to, 2));
}

TEST_F(ksm, swap_entry)
{
	expect_ksm_refused(_metadata, &self->range);
}

TEST_F(ksm, swap_entry_unmergeable)
{
	struct range *range = &self->range;

	ASSERT_EQ(madvise(range->ptr, PAGES(range->nr), MADV_UNMERGEABLE), 0);
	ASSERT_EQ(madvise(range->left, PAGES(NR_LEFT), MADV_UNMERGEABLE), 0);
	expect_ksm_refused(_metadata, range);
}

/* Read again, it is a KSM page where none should be. */
TEST_F(ksm, mapped_unmergeable)
{
	struct range *range = &self->range;

	ASSERT_EQ(madvise(range->ptr, PAGES(range->nr), MADV_UNMERGEABLE), 0);
	ASSERT_EQ(madvise(range->left, PAGES(NR_LEFT), MADV_UNMERGEABLE), 0);
	FORCE_READ(*range->ptr);
	if (!is_ksm(range, range->ptr))
		SKIP(return, "not mapped as a KSM page");
	expect_ksm_refused(_metadata, range);
}

/* A plain move un-shares it, so with the switch it is relocated as well. */
TEST_F(ksm, mapped_mergeable_unasked)
{
	struct range *range = &self->range;
	char *to = range->to;

	FORCE_READ(*range->ptr);
	if (!is_ksm(range, range->ptr))
		SKIP(return, "not mapped as a KSM page");
	ASSERT_EQ(prctl(PR_SET_MREMAP_RELOCATE, PR_MREMAP_RELOCATE_ALL, 0, 0, 0), 0);
	ASSERT_EQ(relocate(range->ptr, range->nr, 0, to), to);
	EXPECT_TRUE(is_merged(range));
	EXPECT_FALSE(is_ksm(range, to));
	EXPECT_TRUE(ksm_intact(range, to));
	ASSERT_TRUE(device_thaw(&range->dev));
	EXPECT_TRUE(ksm_intact(range, to));
}

/* Read again where it may be, it is un-shared like any other. */
TEST_F(ksm, mapped_mergeable)
{
	struct range *range = &self->range;
	char *to = range->to;

	FORCE_READ(*range->ptr);
	if (!is_ksm(range, range->ptr))
		SKIP(return, "not mapped as a KSM page");
	ASSERT_EQ(relocate(range->ptr, range->nr, MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(is_merged(range));
	EXPECT_FALSE(is_ksm(range, to));
	EXPECT_TRUE(ksm_intact(range, to));
	ASSERT_TRUE(device_thaw(&range->dev));
	fill(to, range->nr, 2);
	EXPECT_TRUE(both_healthy(range, to, 2));
}

/* Once it has left the swap cache, nothing is left that is KSM's. */
TEST_F(ksm, swapped_out)
{
	struct range *range = &self->range;
	struct arena *arena = &range->arena;
	char *ptr = range->ptr, *to = range->to;
	int try;

	ASSERT_TRUE(device_thaw(&range->dev));
	for (try = 0; try < PATIENCE && nr_swap_cached(arena, ptr, 1); try++) {
		FORCE_READ(*ptr);
		ASSERT_EQ(pageout(arena, ptr, 1, 1), 1);
		usleep(1000);
	}
	ASSERT_EQ(nr_swap_cached(arena, ptr, 1), 0);
	ASSERT_EQ(relocate(ptr, range->nr, MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(is_merged(range));
	EXPECT_TRUE(ksm_intact(range, to));
	EXPECT_FALSE(is_ksm(range, to));
	fill(to, range->nr, 2);
	EXPECT_TRUE(both_healthy(range, to, 2));
}

/*
 * A large folio that the end of the range cuts has to be split, and cannot be
 * as long as it is under writeback.
 */
FIXTURE(cut)
{
	struct range range;
};

FIXTURE_VARIANT(cut)
{
	int order;
};

FIXTURE_VARIANT_ADD(cut, 64kB)
{
	.order = 4,
};

FIXTURE_VARIANT_ADD(cut, 2MB)
{
	.order = 9,
};

FIXTURE_SETUP(cut)
{
	const char *why = range_setup(&self->range, STALLED, variant->order);

	if (why)
		SKIP(return, "%s", why);
}

FIXTURE_TEARDOWN_PARENT(cut)
{
	range_teardown(&self->range);
}

/*
 * A thread that lets the writes go on once its creator sleeps, in a call that
 * waits for them, or says that the call did not. The call has to be right
 * whenever that happens, so it does no harm to lose patience.
 */
struct thawer {
	pthread_t thread;
	struct device *dev;
	pid_t tid;
	bool returned, failed;
};

static bool is_waiting(pid_t tid)
{
	char path[64], buf[512], *state;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	if (!read_file(path, buf, sizeof(buf)))
		return false;
	state = strrchr(buf, ')');
	return state && state[2] == 'D';
}

static void *thawer(void *arg)
{
	struct thawer *thawer = arg;
	int try;

	for (try = 0; try < PATIENCE; try++) {
		if (__atomic_load_n(&thawer->returned, __ATOMIC_ACQUIRE) ||
		    is_waiting(thawer->tid))
			break;
		usleep(1000);
	}
	thawer->failed = !device_thaw(thawer->dev);
	return NULL;
}

/* Move half of the first folio, in the swap cache or mapped from there. */
static void move_half(struct __test_metadata *_metadata, struct range *range)
{
	struct thawer thaw = { .dev = &range->dev, .tid = syscall(__NR_gettid) };
	struct arena *arena = &range->arena;
	const size_t half = range->unit / 2;
	char *ptr = range->ptr, *to = range->to;
	int err = EFAULT, try;

	ASSERT_EQ(pthread_create(&thaw.thread, NULL, thawer, &thaw), 0);
	/* Who ends the writeback may have the folio for a moment longer. */
	for (try = 0; try < PATIENCE && err; try++) {
		err = relocate(ptr, half, MUST_RELOCATE_ANON, to) == to ? 0 : errno;
		sched_yield();
	}
	__atomic_store_n(&thaw.returned, true, __ATOMIC_RELEASE);
	ASSERT_EQ(pthread_join(thaw.thread, NULL), 0);
	ASSERT_FALSE(thaw.failed);
	ASSERT_EQ(err, 0);

	EXPECT_TRUE(is_one_vma(arena, range->left, NR_LEFT + half));
	EXPECT_TRUE(healthy_from(arena, to, half, 1, 0));
	EXPECT_TRUE(healthy_from(arena, ptr + PAGES(half), range->nr - half, 1,
				 half));
	EXPECT_TRUE(healthy(arena, range->left, NR_LEFT, 9));
}

TEST_F(cut, mapped)
{
	struct range *range = &self->range;

	if (!lose_exclusive(range))
		SKIP(return, "not mapped, not exclusive, under writeback");
	move_half(_metadata, range);
}

/*
 * Not mapped, it cannot be split even then, but it can be dropped from the swap
 * cache: the device has it all.
 */
TEST_F(cut, swap_cached)
{
	struct range *range = &self->range;

	if (!start_writeback(range))
		SKIP(return, "not in the swap cache, under writeback");
	move_half(_metadata, range);
}

/* And if a child has it, too, it is let alone: nobody waits for the device. */
TEST_F(cut, swap_cached_shared)
{
	struct range *range = &self->range;
	struct arena arena = range->arena;
	const size_t half = range->unit / 2;
	struct step step;
	pid_t pid;

	if (!start_writeback(range))
		SKIP(return, "not in the swap cache, under writeback");
	pid = share_with_child(&arena, range->ptr, range->nr, 0, 1, &step);
	snapshot_take(&range->snap, &arena, range->ptr, range->nr);
	EXPECT_TRUE(is_refused(&range->snap, range->ptr, half,
			       MUST_RELOCATE_ANON, range->to));
	EXPECT_TRUE(refused_as("cut_shared", range->ptr));
	EXPECT_EQ(nr_swap_cached(&arena, range->ptr, range->nr), range->nr);
	ASSERT_TRUE(device_thaw(&range->dev));
	tell_child(&step);
	EXPECT_TRUE(reap(pid));

	ASSERT_EQ(relocate(range->ptr, half, MUST_RELOCATE_ANON, range->to),
		  range->to);
	EXPECT_TRUE(is_one_vma(&arena, range->left, NR_LEFT + half));
	EXPECT_TRUE(healthy_from(&arena, range->to, half, 1, 0));
}

/*
 * A process that waits for a device that does not answer can be killed. Nothing
 * of it is left: the device can be taken away when it answers again.
 */
TEST_F(cut, killed_while_waiting)
{
	struct range *range = &self->range;
	struct arena arena = range->arena;
	const size_t half = range->unit / 2;
	struct relocation rel;
	struct step step;
	pid_t pid;
	int try;

	if (!start_writeback(range))
		SKIP(return, "not in the swap cache, under writeback");
	step_init(&step);
	pid = fork_child(&arena);
	if (!pid) {
		wait_for_parent(&step);
		/* By now it is the child's alone. */
		relocate(range->ptr, half, MUST_RELOCATE_ANON, range->to);
		_exit(errno);
	}
	arena_unmap(&arena, (range->ptr - arena.base) / psize(), range->nr);
	tell_child(&step);
	for (try = 0; try < PATIENCE && !is_waiting(pid); try++)
		usleep(1000);
	ASSERT_TRUE(is_waiting(pid));
	EXPECT_TRUE(kill_child(pid));
	if (can_trace()) {
		EXPECT_TRUE(trace_look_at(&rel, pid));
		EXPECT_STREQ(rel.reason, "signal");
		EXPECT_EQ(rel.result, -EINTR);
	}

	ASSERT_TRUE(device_thaw(&range->dev));
	EXPECT_EQ(swapoff(range->dev.path), 0);
}

/*
 * And if another VMA of the range is shared, it is not dropped: to insist on
 * all of them must leave all of them as they are.
 */
TEST_F(cut, swap_cached_and_the_next_vma_shared)
{
	struct range *range = &self->range;
	struct arena arena = range->arena;
	const size_t nr = range->nr, half = range->unit / 2, part = nr - half;
	char *ptr = range->ptr, *next = ptr + PAGES(nr), *to = range->to;
	struct step step;
	pid_t pid;

	/* ..[aAAA][BBBB].., and the child has B only. */
	arena_map(&arena, (next - arena.base) / psize(), 4);
	ASSERT_EQ(madvise(next, PAGES(4), MADV_NOHUGEPAGE), 0);
	fill_from(next, 4, 1, nr);
	ASSERT_EQ(mprotect(next, PAGES(4), PROT_READ), 0);
	if (!start_writeback(range))
		SKIP(return, "not in the swap cache, under writeback");
	pid = share_with_child(&arena, ptr, nr + 4, nr, 1, &step);

	ASSERT_TRUE(device_thaw(&range->dev));
	snapshot_take(&range->snap, &arena, ptr, nr + 4);
	EXPECT_TRUE(is_refused(&range->snap, ptr + PAGES(half), part + 4,
			       MUST_RELOCATE_ANON, to));
	EXPECT_TRUE(refused_as("shared_page", next));
	EXPECT_EQ(nr_swap_cached(&arena, ptr, nr), nr);
	tell_child(&step);
	EXPECT_TRUE(reap(pid));

	ASSERT_EQ(relocate(ptr + PAGES(half), part + 4, MUST_RELOCATE_ANON, to),
		  to);
	EXPECT_TRUE(is_one_vma(&arena, range->left, NR_LEFT + part));
	EXPECT_TRUE(healthy_from(&arena, to, part + 4, 1, half));
	EXPECT_TRUE(healthy(&arena, ptr, half, 1));
}

/*
 * Two processes have a folio that came back from swap. One maps it, the other
 * still has the swap entries, which keep it in the swap cache. One of the two
 * moves half of it. The folio cannot be re-homed, so it must not be split
 * either: the other half, and the other process, would pay for nothing.
 */
FIXTURE(read_by_one)
{
	struct range range;
	struct step step;
};

FIXTURE_VARIANT(read_by_one)
{
	int order;
};

FIXTURE_VARIANT_ADD(read_by_one, 64kB)
{
	.order = 4,
};

FIXTURE_VARIANT_ADD(read_by_one, 1MB)
{
	.order = 8,
};

/* Read all of it, into folios of the size that it had before. */
static bool read_back_whole(struct range *range, struct arena *arena)
{
	size_t i;

	if (madvise(range->ptr, PAGES(range->nr), MADV_HUGEPAGE))
		return false;
	force_read_pages(range->ptr, range->nr, psize());
	if (madvise(range->ptr, PAGES(range->nr), MADV_NOHUGEPAGE))
		return false;
	for (i = 0; i < range->nr; i += range->unit) {
		if (folio_pages(arena, range->ptr + PAGES(i)) != range->unit)
			return false;
	}
	return true;
}

FIXTURE_SETUP(read_by_one)
{
	struct range *range = &self->range;
	const char *why = range_setup(range, ZRAM, variant->order);

	if (!why) {
		if (!swap_out(range) || !read_back_whole(range, &range->arena) ||
		    !swap_out(range))
			why = "folios of this size are not read back whole";
		if (why)
			range_teardown(range);
	}
	if (why)
		SKIP(return, "%s", why);
	step_init(&self->step);
}

FIXTURE_TEARDOWN_PARENT(read_by_one)
{
	range_teardown(&self->range);
}

static void expect_half_refused(struct __test_metadata *_metadata,
				struct range *range)
{
	snapshot_take(&range->snap, &range->arena, range->ptr, range->nr);
	EXPECT_TRUE(is_refused(&range->snap, range->ptr, range->unit / 2,
			       MUST_RELOCATE_ANON, range->to));
	EXPECT_TRUE(refused_as("cut_shared", range->ptr));
}

static void expect_half_moved_plainly(struct __test_metadata *_metadata,
				      struct range *range)
{
	const size_t half = range->unit / 2;

	read_entries(&range->arena, range->ptr, half, range->entries);
	ASSERT_EQ(relocate(range->ptr, half, RELOCATE_ANON, range->to), range->to);
	EXPECT_TRUE(same_entries(&range->arena, range->to, half, range->entries));
	EXPECT_TRUE(is_one_vma(&range->arena, range->left, NR_LEFT));
}

/* The other process is gone: now it is worth a split. */
static void expect_half_relocated(struct __test_metadata *_metadata,
				  struct range *range)
{
	struct arena *arena = &range->arena;
	const size_t half = range->unit / 2;

	ASSERT_EQ(relocate(range->to, half, 0, range->ptr), range->ptr);
	ASSERT_EQ(relocate(range->ptr, half, MUST_RELOCATE_ANON, range->to),
		  range->to);
	EXPECT_TRUE(is_one_vma(arena, range->left, NR_LEFT + half));
	EXPECT_TRUE(healthy_from(arena, range->to, half, 1, 0));
	EXPECT_TRUE(healthy_from(arena, range->ptr + PAGES(half),
				 range->nr - half, 1, half));
	EXPECT_TRUE(healthy(arena, range->left, NR_LEFT, 9));
}

TEST_F(read_by_one, here)
{
	struct range *range = &self->range;
	struct arena arena = range->arena;
	struct step step;
	pid_t pid;

	pid = share_with_child(&arena, range->ptr, range->nr, 0, 1, &step);
	ASSERT_TRUE(read_back_whole(range, &range->arena));
	expect_half_refused(_metadata, range);
	EXPECT_EQ(folio_pages(&range->arena, range->ptr), range->unit);
	expect_half_moved_plainly(_metadata, range);
	EXPECT_EQ(folio_pages(&range->arena, range->to), range->unit);
	tell_child(&step);
	EXPECT_TRUE(reap(pid));
	expect_half_relocated(_metadata, range);
}

TEST_F(read_by_one, in_child)
{
	struct range *range = &self->range;
	struct arena child_arena = range->arena;
	pid_t pid;

	pid = fork_child(&child_arena);
	if (!pid) {
		EXPECT_TRUE(read_back_whole(range, &child_arena));
		tell_parent(&self->step);
		wait_for_parent(&self->step);
		EXPECT_EQ(folio_pages(&child_arena, range->ptr), range->unit);
		tell_parent(&self->step);
		wait_for_parent(&self->step);
		EXPECT_EQ(folio_pages(&child_arena, range->ptr), range->unit);
		EXPECT_TRUE(intact(range->ptr, range->nr, 1));
		_exit(_metadata->exit_code);
	}

	wait_for_child(&self->step);
	ASSERT_EQ(nr_swap_cached(&range->arena, range->ptr, range->nr),
		  range->nr);
	expect_half_refused(_metadata, range);
	tell_child(&self->step);
	wait_for_child(&self->step);
	expect_half_moved_plainly(_metadata, range);
	tell_child(&self->step);
	EXPECT_TRUE(reap(pid));
	expect_half_relocated(_metadata, range);
}

TEST_HARNESS_MAIN
