/* SPDX-License-Identifier: GPL-2.0 */

/*
 * The processes of a printed program all go through its main(), and each takes
 * the steps that are its own, in their order.
 */
static volatile int *turn;
static int me;

static void begin(void)
{
	turn = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	arena_setup();
	catch_faults();
	alarm(60);
	setvbuf(stdout, NULL, _IONBF, 0);
}

static bool my_turn(int step, int who)
{
	while (*turn < step)
		sched_yield();
	return *turn == step && me == who;
}

#define STEP(step, who)	for (; my_turn(step, who); ++*turn)

static void expect(int line, long is, long want)
{
	printf("line %d: %ld%s\n", line, is, is == want ? "" : "  <== expected:");
	if (is != want)
		printf("line %d: %ld\n", line, want);
}

#define EXPECT(call, want)	expect(__LINE__, call, want)

/* The process id of each is behind the turn. */
#define FORK(step, who, id)				\
	do {						\
		pid_t pid;				\
							\
		if (!my_turn(step, who))		\
			break;				\
		pid = fork();				\
		if (pid) {				\
			turn[1 + (id)] = pid;		\
			++*turn;			\
		} else {				\
			me = id;			\
			forget_parent();		\
		}					\
	} while (0)

static void wait_for_exit(pid_t pid)
{
	struct pollfd pollfd = { .events = POLLIN };

	pollfd.fd = syscall(SYS_pidfd_open, pid, 0);
	poll(&pollfd, 1, 20000);
	close(pollfd.fd);
}

/* The others go on when its memory has gone. */
#define EXIT(step, who)					\
	do {						\
		if (my_turn(step, who))			\
			_exit(0);			\
		if (!me && *turn == (step)) {		\
			wait_for_exit(turn[1 + (who)]);	\
			++*turn;			\
		}					\
	} while (0)

/* 1 if all pages have the bytes of their stamps. */
static long do_compare_all(long page, long nr, uint32_t stamp)
{
	long i;

	for (i = 0; i < nr; i++) {
		if (do_compare(page + i, stamp ? stamp + i : 0) != 1) {
			printf("page %ld: word %d is %#lx\n", page + i,
			       wrong_index, (long)wrong_word);
			return 0;
		}
	}
	return 1;
}

static void show(void)
{
	unsigned long start, end;
	char line[256];
	FILE *maps = fopen("/proc/self/maps", "r");

	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx", &start, &end) == 2 &&
		    start >= (unsigned long)base &&
		    end <= (unsigned long)at(NR_PAGES))
			printf("%4ld to %4ld %s", page_of((void *)start),
			       page_of((void *)end), strchr(line, ' '));
	}
	fclose(maps);
}
