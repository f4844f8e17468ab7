// AMX in software, for CPUs without it: a library to preload, which does what the instructions on tiles of a program would
// do where the CPU finds them invalid. From the Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2.
#define _GNU_SOURCE
#include <immintrin.h>
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64 };

struct tile {
    unsigned rows, row_bytes;
    _Alignas(64) uint8_t data[ROWS][ROW_BYTES];
};

static __thread struct tile tiles[TILES];
static __thread int configured;

// The register of an operand's four bits.
static greg_t *reg(ucontext_t *u, unsigned number) {
    static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    return &u->uc_mcontext.gregs[order[number]];
}

struct address {
    uint8_t *base;
    int64_t stride;
    const uint8_t *next;
};

// The memory operand at its ModRM byte; `x` and `b` extend index and base. With an index, it is the stride between rows.
static struct address address(ucontext_t *u, const uint8_t *at, unsigned x, unsigned b) {
    unsigned mod = *at >> 6, rm = *at & 7;
    struct address a = {0, 0, at + 1};
    int64_t base = 0;
    int has_base = 1;
    if (rm == 4) {
        unsigned sib = *a.next++, index = (sib >> 3 & 7) | x << 3;
        has_base = !((sib & 7) == 5 && mod == 0);
        if (has_base) base = *reg(u, (sib & 7) | b << 3);
        if (index != 4) a.stride = *reg(u, index) << (sib >> 6);
    } else if (rm == 5 && mod == 0) {
        int32_t offset;
        memcpy(&offset, a.next, 4);
        a.next += 4;
        a.base = (uint8_t *)(a.next + offset);
        return a;
    } else {
        base = *reg(u, rm | b << 3);
    }
    int32_t offset = 0;
    if (mod == 1) {
        offset = (int8_t)*a.next++;
    } else if (mod == 2 || !has_base) {
        memcpy(&offset, a.next, 4);
        a.next += 4;
    }
    a.base = (uint8_t *)(base + offset);
    return a;
}

static float bf16(const uint8_t *p) {
    uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 24;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

// TDPBF16PS: sums of even and of odd products, each rounded once per product; then their sum is added. Subnormal numbers
// are zero, as operands and as results, whatever MXCSR says.
static void multiply_bf16(struct tile *c, const struct tile *a, const struct tile *b) {
    unsigned mxcsr = _mm_getcsr();
    _mm_setcsr(0x1f80 | 0x8040);
    for (unsigned m = 0; m < c->rows; m++) {
        float sums[ROW_BYTES / 4][2] = {{0}};
        for (unsigned k = 0; k < a->row_bytes / 4; k++)
            for (unsigned n = 0; n < c->row_bytes / 4; n++)
                for (unsigned i = 0; i < 2; i++)
                    sums[n][i] = fmaf(bf16(&a->data[m][4 * k + 2 * i]), bf16(&b->data[k][4 * n + 2 * i]), sums[n][i]);
        for (unsigned n = 0; n < c->row_bytes / 4; n++) {
            float sum;
            memcpy(&sum, &c->data[m][4 * n], 4);
            volatile float pair = sums[n][0] + sums[n][1];
            sum += pair;
            memcpy(&c->data[m][4 * n], &sum, 4);
        }
    }
    _mm_setcsr(mxcsr);
}

// TDPBUSD: unsigned bytes of the first operand by signed ones of the second; sums wrap around.
static void multiply_int8(struct tile *c, const struct tile *a, const struct tile *b) {
    for (unsigned m = 0; m < c->rows; m++)
        for (unsigned k = 0; k < a->row_bytes / 4; k++)
            for (unsigned n = 0; n < c->row_bytes / 4; n++) {
                uint32_t sum;
                memcpy(&sum, &c->data[m][4 * n], 4);
                for (unsigned i = 0; i < 4; i++) sum += (uint32_t)(a->data[m][4 * k + i] * (int8_t)b->data[k][4 * n + i]);
                memcpy(&c->data[m][4 * n], &sum, 4);
            }
}

static int configure(const uint8_t *from) {
    static const uint8_t zeros[16];
    if (from[0] != 1 || from[1] != 0 || memcmp(from + 2, zeros, 14)) return 0;
    memset(tiles, 0, sizeof tiles);
    for (unsigned t = 0; t < TILES; t++) {
        tiles[t].row_bytes = from[16 + 2 * t] | from[17 + 2 * t] << 8;
        tiles[t].rows = from[48 + t];
        if (tiles[t].row_bytes > ROW_BYTES || tiles[t].row_bytes % 4 || tiles[t].rows > ROWS) return 0;
    }
    return configured = 1;
}

// Whether all tiles that an instruction names are configured, and a product's fit each other.
static int are_there(const struct tile *c, const struct tile *a, const struct tile *b) {
    if (!configured || !c->rows || !c->row_bytes) return 0;
    return !a || (a != b && a != c && b != c && a->rows == c->rows && b->rows == a->row_bytes / 4 &&
                  b->row_bytes == c->row_bytes);
}

// Does the instruction that the program is at, if it is one on tiles.
static int execute(ucontext_t *u) {
    const uint8_t *at = (const uint8_t *)u->uc_mcontext.gregs[REG_RIP];
    if (at[0] != 0xc4 || (at[1] & 31) != 2) return 0;
    unsigned r = !(at[1] & 0x80), x = !(at[1] & 0x40), b = !(at[1] & 0x20);
    unsigned wide = at[2] >> 7, third = ~at[2] >> 3 & 15, length = at[2] >> 2 & 1, prefix = at[2] & 3, code = at[3];
    const uint8_t *modrm = at + 4, *next = at + 5;
    unsigned of_registers = *modrm >> 6 == 3, first = *modrm >> 3 & 7;
    enum { NONE, P66, PF3, PF2 };
    if (wide || length || r) return 0;
    struct tile *c = &tiles[first];
    if (code == 0x49 && prefix == NONE && !of_registers && first == 0) {
        struct address a = address(u, modrm, x, b);
        if (!configure(a.base)) return 0;
        next = a.next;
    } else if (code == 0x49 && prefix == NONE && *modrm == 0xc0) {
        configured = 0;
    } else if (code == 0x49 && prefix == PF2 && of_registers) {
        if (!are_there(c, 0, 0)) return 0;
        memset(c->data, 0, sizeof c->data);
    } else if (code == 0x4b && prefix != NONE && !of_registers && (*modrm & 7) == 4) {
        if (!are_there(c, 0, 0)) return 0;
        struct address a = address(u, modrm, x, b);
        for (unsigned row = 0; row < c->rows; row++) {
            uint8_t *memory = a.base + row * a.stride;
            if (prefix == PF3) {
                memcpy(memory, c->data[row], c->row_bytes);
            } else {
                memset(c->data[row], 0, ROW_BYTES);
                memcpy(c->data[row], memory, c->row_bytes);
            }
        }
        next = a.next;
    } else if (of_registers && third < TILES && !b && ((code == 0x5c && prefix == PF3) || (code == 0x5e && prefix == P66))) {
        const struct tile *a = &tiles[*modrm & 7], *other = &tiles[third];
        if (!are_there(c, a, other)) return 0;
        (code == 0x5c ? multiply_bf16 : multiply_int8)(c, a, other);
    } else {
        return 0;
    }
    u->uc_mcontext.gregs[REG_RIP] = (greg_t)next;
    return 1;
}

static void on_invalid(int signal_number, siginfo_t *info, void *context) {
    (void)info;
    if (!execute(context)) signal(signal_number, SIG_DFL);
}

__attribute__((constructor)) static void start(void) {
    struct sigaction action = {.sa_sigaction = on_invalid, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGILL, &action, 0);
}
