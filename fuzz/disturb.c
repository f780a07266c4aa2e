// SPDX-License-Identifier: GPL-2.0
/*
 * Migrate pages of the processes under test while they make their calls. A seed
 * then no longer replays exactly.
 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "fuzz.h"

#define AT_ONCE		128

static void migrate_some(pid_t pid, int node)
{
	int page = rand() % (NR_PAGES - AT_ONCE), nr = AT_ONCE, i;
	int nodes[AT_ONCE], status[AT_ONCE];
	void *pages[AT_ONCE];

	/* Most of the time, what the last call moved, or the next one will. */
	if (rand() % 4 && control->nr_hot) {
		page = control->hot;
		if (control->nr_hot < nr)
			nr = control->nr_hot;
		else
			page += rand() % (control->nr_hot - nr + 1);
	}
	for (i = 0; i < nr; i++) {
		pages[i] = (void *)(arena_base() + (page + i) * PAGE);
		nodes[i] = node;
	}
	syscall(SYS_move_pages, pid, nr, pages, nodes, status,
		4 /* MPOL_MF_MOVE_ALL */);
}

void disturb_start(void)
{
	cpu_set_t cpus;
	int node = 0;
	pid_t pid;

	control->hold = true;
	if (fork())
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	CPU_ZERO(&cpus);
	CPU_SET(1, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	for (;;) {
		control->held = control->hold;
		if (control->held) {
			usleep(100);
			continue;
		}
		pid = control->pids[rand() % NR_PROCS];
		if (pid > 0)
			migrate_some(pid, node ^= 1);
	}
}

/* Returns when it has begun, or ended. */
void disturb(bool on)
{
	if (!opt.disturb)
		return;
	control->hold = !on;
	while (control->held == on)
		usleep(50);
}
