// Package bpf holds the XDP program and its Go mirror, the only definition of
// the ABI between the two. The object and the Go types are generated from the
// C beside them and committed: building ikepulse needs no compiler but Go's.
package bpf

// Rebuilding needs clang-19, llvm-19, linux-libc-dev and libbpf-dev of Debian 12.
//
//go:generate go tool bpf2go -cc clang-19 -target bpfel -type clock_sample -type slot_split -type reason -type keepalive -type peer_flag -type sa_flag -type layout -type event -type event_kind -type budget_index -type follow_key ikepulse ikepulse.c -- -Wall -Wextra -Werror -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu
