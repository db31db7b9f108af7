/* Which instruction sets this processor and its system run. */

#include "kernels.h"

#include <string.h>

#if defined(__x86_64__)

#include <cpuid.h>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum { EAX, EBX, ECX, EDX };

static int has_bit(const unsigned registers[4], int at, int bit) { return registers[at] >> bit & 1; }

/* Which registers the system saves when it switches threads: XCR0. */
static unsigned saved_registers(void) {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* Linux lends the tiles to a process that asks: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA). */
static int may_use_tiles(void) {
#if defined(__linux__)
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
    return 0;
#endif
}

static void read_leaf(unsigned leaf, unsigned subleaf, unsigned registers[4]) {
    memset(registers, 0, 4 * sizeof *registers);
    __get_cpuid_count(leaf, subleaf, registers + EAX, registers + EBX, registers + ECX, registers + EDX);
}

/* Bits as in the Intel SDM, volume 2, CPUID. */
static int supports(const char *isa) {
    unsigned basic[4], features[4], more[4];
    read_leaf(1, 0, basic);
    read_leaf(7, 0, features);
    read_leaf(7, 1, more);
    unsigned saved = has_bit(basic, ECX, 27) ? saved_registers() : 0; /* OSXSAVE */
    int avx2 = (saved & 0x6) == 0x6 && has_bit(basic, ECX, 12) /* FMA */ && has_bit(features, EBX, 5) &&
               has_bit(features, EBX, 3) /* BMI */ && has_bit(features, EBX, 8) /* BMI2 */;
    int avx512 = avx2 && (saved & 0xe0) == 0xe0 && has_bit(features, EBX, 16) /* F */ &&
                 has_bit(features, EBX, 17) /* DQ */ && has_bit(features, EBX, 30) /* BW */ &&
                 has_bit(features, EBX, 31) /* VL */;
    int avx512_bf16 = avx512 && has_bit(more, EAX, 5);
    int amx = avx512_bf16 && (saved & 0x60000) == 0x60000 && has_bit(features, EDX, 22) /* BF16 */ &&
              has_bit(features, EDX, 24) /* TILE */ && has_bit(features, EDX, 25) /* INT8 */;
    if (!strcmp(isa, "baseline")) return 1;
    if (!strcmp(isa, "avx2")) return avx2;
    if (!strcmp(isa, "avx512")) return avx512;
    if (!strcmp(isa, "avx512_bf16")) return avx512_bf16;
    if (!strcmp(isa, "amx")) return amx && may_use_tiles();
    return 0;
}

#elif defined(__aarch64__)

#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

static int supports(const char *isa) {
    if (strcmp(isa, "neon")) return 0;
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_ASIMD) != 0;
#else
    return 1; /* part of the ABI */
#endif
}

#else

static int supports(const char *isa) { return !strcmp(isa, "baseline"); }

#endif

/* Whether kernels of this name may be called. Of "amx" the first call asks the system for the tiles. */
EXPORT int rerankd_cpu_supports(const char *isa) { return supports(isa); }
