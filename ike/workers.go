package ike

import "sync"

// workers run the jobs of a Core.
type workers struct {
	todo chan Job
	done chan finished
	all  sync.WaitGroup
}

type finished struct {
	id     uint64
	result Result
}

// newWorkers has room for as many jobs as its Core gives out, so that neither waits
// for the other.
func newWorkers(n, jobs int) *workers {
	w := &workers{todo: make(chan Job, jobs), done: make(chan finished, jobs)}
	for range n {
		w.all.Go(func() {
			for j := range w.todo {
				w.done <- finished{j.ID, j.Run()}
			}
		})
	}
	return w
}

// close waits for what is being done. Nobody wants it any more.
func (w *workers) close() {
	close(w.todo)
	w.all.Wait()
	close(w.done)
	for f := range w.done {
		f.result.discard()
	}
}
