package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// tryAll runs the tests of each package for each of its mutants, and leaves in dir
// what it built of what does not change.
func tryAll(ctx context.Context, t *tree, work []*pkg, dir string, parallel int) error {
	for _, p := range work {
		if err := p.try(ctx, t.root, dir, parallel); err != nil {
			return fmt.Errorf("%s: %w", p.dir, err)
		}
	}
	return nil
}

// try does so for one package, once its tests have passed without a change.
func (p *pkg) try(ctx context.Context, root, dir string, parallel int) error {
	base := &bench{root: root, pkg: p.dir, dir: filepath.Join(dir, "base"), allowed: asLongAsItTakes}
	if err := base.make(); err != nil {
		return err
	}
	if err := base.build(ctx); err != nil {
		return fmt.Errorf("%w\n%s", err, base.out.first)
	}
	s, taken, err := base.test(ctx, "")
	if err != nil || s != alive {
		return errors.Join(err, fmt.Errorf("the tests fail as it is: %s", base.out.first))
	}
	var todo []*job
	for _, f := range p.files {
		for _, m := range f.mutants {
			todo = append(todo, &job{f, m})
		}
	}
	fmt.Printf("%s: %d changes; its tests take %v\n", p.dir, len(todo), taken.real.Round(time.Millisecond))
	return each(parallel, todo, func(n int) (func(*job) error, error) {
		b := &bench{root: root, pkg: p.dir, dir: filepath.Join(dir, fmt.Sprint("worker", n)), allowed: taken.patiently(), base: base}
		if err := b.make(); err != nil {
			return nil, err
		}
		if err := b.shareCache(); err != nil {
			return nil, err
		}
		return func(j *job) error { return b.try(ctx, j) }, nil
	})
}

// job is a mutant and what it changes.
type job struct {
	file   *file
	mutant *mutant
}

// each has so many workers do what is to do, until one fails.
func each(workers int, todo []*job, worker func(n int) (func(*job) error, error)) error {
	var wg sync.WaitGroup
	jobs := make(chan *job)
	failed := make(chan error, workers)
	for n := range workers {
		wg.Go(func() {
			do, err := worker(n)
			for j := range jobs {
				if err == nil {
					err = do(j)
				}
			}
			failed <- err
		})
	}
	for _, j := range todo {
		jobs <- j
	}
	close(jobs)
	wg.Wait()
	close(failed)
	var first error
	for err := range failed {
		first = cmp.Or(first, err)
	}
	return first
}

// try builds a mutant and runs the tests.
func (b *bench) try(ctx context.Context, j *job) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.overlay(j.file.name, j.mutant.apply(j.file.source)); err != nil {
		return err
	}
	err := b.build(ctx)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, new(*exec.ExitError)):
		j.mutant.state = broken
	case err != nil:
		return err
	default:
		if j.mutant.state, err = b.verdict(ctx); err != nil {
			return err
		}
	}
	return b.trimCache()
}
