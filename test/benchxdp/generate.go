package main

// Rebuilding needs clang-19, llvm-19, linux-libc-dev and libbpf-dev of Debian 12.
//
//go:generate go tool bpf2go -cc clang-19 -target bpfel bench bench.c -- -Wall -Wextra -Wno-unused-parameter -Werror -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu
