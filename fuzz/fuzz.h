/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The model fuzzer of mremap() and its relocation flags.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/types.h>

/* Not in the headers of an older C library. replay.h stands alone. */
#ifndef MADV_COLD
#define MADV_COLD		20
#define MADV_PAGEOUT		21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ	22
#define MADV_POPULATE_WRITE	23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE		25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL	102
#define MADV_GUARD_REMOVE	103
#endif

#ifndef NR_PAGES
#define PAGE		4096ul
#define NR_PAGES	2048
#define NR_PROCS	3
#define BLOCK		512
#endif
#define MAX_VMAS	1024
#define MAX_OPS		400
#define MAX_INST	(1 << 20)

/* mremap() */
#define MAYMOVE		1
#define FIXED		2
#define DONTUNMAP	4
#define RELOCATE	8
#define MUST		16

enum op_type {
	OP_MMAP, OP_MUNMAP, OP_MREMAP, OP_MPROTECT, OP_MADVISE, OP_MLOCK,
	OP_MUNLOCK, OP_NAME, OP_WRITE, OP_READ, OP_FORK, OP_EXIT,
	OP_UFFD_REGISTER, OP_UFFD_UNREGISTER, OP_UFFD_WP, OP_MIGRATE,
	OP_CLEAR_REFS, OP_COMPARE,
};

enum kind { ANON, SHARED, ZERO };

struct op {
	int type, who;
	int page, nr;
	int to, new_nr;
	int flags;		/* Of mremap(), protection or advice. */
	int mmap_flags;
	int kind;
	uint32_t arg;		/* Stamp, name, node, process, on or off. */
	int off, nth;
};

struct result {
	long ret;		/* A value, or a negative errno. */
	int sig;
	bool injected;
	uint64_t word;		/* The first wrong one. */
	int index;
};

/* All that has to be the same for two VMAs to merge. */
#define ACCT_UNKNOWN	2

struct attr {
	uint8_t prot, kind, locked, thp, name, uffd, acct, noreserve;
	uint16_t file;
};

struct vma {
	int start, end;
	struct attr a;
	long pgoff;
	uint32_t anon;		/* Its anon_vma, 0 if none. */
	bool child;		/* Inherited by fork() with an anon_vma. */
	bool fuzzy;		/* The last three are not known. */
	bool maybe;		/* The last call may have merged it. */
};

struct page {
	uint32_t stamp;		/* Of its contents, 0 for zeroes. */
	uint32_t inst;		/* The page itself; who has it, is counted. */
	bool guard, wp;
};

struct proc {
	bool alive, grandchild;
	bool books_off;		/* The kernel has lost count, see mremap.c. */
	pid_t pid;
	int nr;
	struct vma v[MAX_VMAS + 8];
	struct page p[NR_PAGES];
};

/* A shared mapping. */
struct object {
	int size;
	uint32_t stamp[NR_PAGES];
};

struct model {
	struct proc proc[NR_PROCS];
	uint32_t next_inst, next_anon;
	uint16_t next_file;
	bool books_off;
	struct object object[64];
};

extern struct model m;
extern uint8_t inst_refs[MAX_INST], inst_unsure[MAX_INST];

/* What was in the page tables before a call, see check.c. */
struct before {
	uint64_t pm[NR_PROCS][NR_PAGES];
	uint64_t kf[NR_PROCS][NR_PAGES];
	bool taken;
	int page, nr;
};

extern struct before before;

struct options {
	bool unpatched;		/* Leave the flags out. */
	bool verbose;
	bool no_nth;
	bool disturb;
	bool no_shrink;
	bool same;		/* Only what gives the same bytes without the flags. */
	bool alone;		/* Nobody else commits memory meanwhile. */
	int nr_ops;
};

extern struct options opt;
extern int thp_mode;		/* Of this sequence: 0, 1, 2 or 3. */
extern bool has_names;	/* CONFIG_ANON_VMA_NAME */

/* model.c */
void model_reset(void);
int vma_at(struct proc *p, int page);
int vma_next(struct proc *p, int page);
void vma_split(struct proc *p, int page);
void vma_insert(struct proc *p, const struct vma *v);
void vma_remove(struct proc *p, int i);
void drop_page(struct page *pg);
void unmap_range(struct proc *p, int start, int end);
void unmap_vmas(struct proc *p, int start, int end);
bool unknown(const struct vma *v);
bool same_attr(const struct vma *a, const struct vma *b);
enum answer { NO, YES, MAYBE };
enum answer can_merge(struct vma *a, struct vma *b, bool a_is_old, bool src_child);
void merge_new(struct proc *p, struct vma *c, bool src_child, int not1, int not2);
void modify(struct proc *p, int start, int end, const struct attr *a, int keep);
void modify_range(struct proc *p, int start, int end,
		  void (*change)(struct vma *v, struct attr *a, int arg), int arg);
uint32_t reusable_anon(struct proc *p, const struct vma *v, bool *unsure);
void fault_anon(struct proc *p, int i);
int touch(struct proc *p, int page, bool write, uint32_t stamp);
uint32_t stamp_at(struct proc *p, int page);
bool is_free(struct proc *p, int start, int nr);
bool has_gap(struct proc *p, int nr);
int nr_mapped(struct proc *p, bool locked);
const char *apply(struct op *op, struct result *res);

/* mremap.c */
const char *apply_mremap(struct op *op, struct result *res);
enum sharing { SOLE, SHARED_PAGE, UNSURE };

/* check.c */
void check_init(void);
void take_before(struct op *op);
enum sharing observed(struct proc *p, int start, int end);
bool is_cut(struct proc *p, int start, int end);
void count_entries(struct proc *p, int start, int nr);
extern unsigned long nr_pages, nr_swapped, nr_large;
const char *check_moved(struct proc *p, int from, int to, int nr, bool wp_lost,
			bool folios);
const char *check_unchanged(struct proc *p, int from, int nr, bool in_place);
const char *check_layout(struct proc *p);
const char *check_books(struct proc *p);
const char *check_flags(struct proc *p);
bool is_present(int who, int page);
bool is_mapped_now(int who, int page);
void books_start(struct proc *p);
void read_now(int who);
const char *kernel_says(void);
long committed(void);
const char *fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* run.c */
const char *run_sequence(struct op *ops, int *nr, uint64_t seed, bool generate);
bool is_valid(struct op *op);
extern struct result results[MAX_OPS];
extern uint64_t digest;
extern bool hangs;		/* A process is in a call that does not end. */
extern unsigned long nr_done, nr_relocated, nr_refused, nr_injected, nr_plain;
extern int failed_at;
bool control_init(void);

/* gen.c */
void gen_start(uint64_t seed);
void generate(struct op *op, int step);
unsigned int rnd(unsigned int n);

/* print.c */
void print_op(const struct op *op, const struct result *res);
void print_program(const struct op *ops, const struct result *res, int nr,
		   const char *why, uint64_t seed);

/* shrink.c */
void warn_again(void);
int shrink(struct op *ops, int nr, uint64_t seed, const char **why);

/* disturb.c */
void disturb_start(void);
void disturb(bool on);

/* worker.c */
struct control {
	struct op op;
	struct result res;
	uint32_t want[NR_PAGES];
	/* For the disturber. */
	volatile pid_t pids[NR_PROCS];
	volatile int hot, nr_hot;
	volatile bool hold, held;
};

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

#define SKIP	0xffffffffu

extern struct control *control;
extern int command_pipe[NR_PROCS][2], answer_pipe[2];
void worker(int me);
unsigned long arena_base(void);
void worker_setup(void);

#endif
