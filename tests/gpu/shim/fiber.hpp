// A fiber: a stack of its own and a switch to it. swapcontext makes a system call for the signal
// mask at every switch; the switches below save what the calling convention says survives a call,
// and no more.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(SHIM_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define SHIM_UCONTEXT
#endif

#ifdef SHIM_UCONTEXT
#include <ucontext.h>

namespace shim {

struct Context {
    ucontext_t state;
};

inline void switch_context(Context& from, Context& to) {
    swapcontext(&from.state, &to.state);
}

// `enter` must not return.
inline void make_context(Context& context, char* stack, size_t bytes, void (*enter)()) {
    getcontext(&context.state);
    context.state.uc_stack.ss_sp = stack;
    context.state.uc_stack.ss_size = bytes;
    context.state.uc_link = nullptr;
    makecontext(&context.state, enter, 0);
}

}  // namespace shim

#else

extern "C" void shim_switch(void** from, void* to);

#ifdef __x86_64__
asm(R"(
.text
.type shim_switch, @function
shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size shim_switch, .-shim_switch
)");
constexpr size_t kSavedWords = 8;  // six registers, the return address, and what aligns the stack
constexpr size_t kReturnWord = 6;
#else
asm(R"(
.text
.type shim_switch, %function
shim_switch:
    stp x19, x20, [sp, #-160]!
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    ldp x19, x20, [sp], #160
    ret
.size shim_switch, .-shim_switch
)");
constexpr size_t kSavedWords = 20;
constexpr size_t kReturnWord = 11;
#endif

namespace shim {

struct Context {
    void* stack_pointer;
};

inline void switch_context(Context& from, Context& to) {
    shim_switch(&from.stack_pointer, to.stack_pointer);
}

// `enter` must not return.
inline void make_context(Context& context, char* stack, size_t bytes, void (*enter)()) {
    const auto top = (reinterpret_cast<uintptr_t>(stack) + bytes) & ~uintptr_t{15};
    auto* saved = reinterpret_cast<uintptr_t*>(top) - kSavedWords;
    for (size_t i = 0; i < kSavedWords; i++) saved[i] = 0;
    saved[kReturnWord] = reinterpret_cast<uintptr_t>(enter);
    context.stack_pointer = saved;
}

}  // namespace shim

#endif
