package main

import (
	"errors"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// tickFrom replaces each reading of jiffies by one of the mutators' counter, so
// that every frame comes in a new tick. The kernel makes two instructions of
// that helper, the address and a load, and so does this: the program costs what
// it costs as it ships.
func tickFrom(program asm.Instructions, state *ebpf.Map) (asm.Instructions, error) {
	const growth = 2 // a call is one, an address two, a load one
	var readings []asm.RawInstructionOffset
	for iter := program.Iterate(); iter.Next(); {
		if readsJiffies(*iter.Ins) {
			readings = append(readings, iter.Offset)
		}
	}
	if len(readings) == 0 {
		return nil, errors.New("the program does not read jiffies")
	}
	shift := func(at asm.RawInstructionOffset) (by int16) {
		for _, reading := range readings {
			if reading < at {
				by += growth
			}
		}
		return by
	}

	var out asm.Instructions
	for iter := program.Iterate(); iter.Next(); {
		ins := *iter.Ins
		if readsJiffies(ins) {
			out = append(out, readsTick(state, ins)...)
			continue
		}
		if jumps(ins) {
			// Distances count from the next instruction, in raw ones.
			target := asm.RawInstructionOffset(int(iter.Offset) + 1 + int(ins.Offset))
			ins.Offset += shift(target) - shift(iter.Offset)
		}
		if ins.IsFunctionReference() {
			ins.Constant = unresolved
		}
		out = append(out, ins)
	}
	return out, nil
}

// unresolved is the distance to a function that is looked up by its name.
const unresolved = -1

func readsJiffies(ins asm.Instruction) bool {
	return ins.IsBuiltinCall() && ins.Constant == int64(asm.FnJiffies64)
}

// readsTick has the source line and label of what it stands for.
func readsTick(state *ebpf.Map, ins asm.Instruction) asm.Instructions {
	const offset = uint32(unsafe.Offsetof(benchShared{}.Tick))
	return asm.Instructions{
		asm.LoadMapValue(asm.R0, state.FD(), offset).WithMetadata(ins.Metadata),
		asm.LoadMem(asm.R0, asm.R0, 0, asm.DWord),
	}
}

// jumps tells whether the instruction's offset is a distance in the program.
func jumps(ins asm.Instruction) bool {
	return ins.OpCode.Class().IsJump() && ins.OpCode.JumpOp() != asm.Call && ins.OpCode.JumpOp() != asm.Exit
}
