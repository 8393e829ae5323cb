package ike

import (
	"bytes"
	"container/list"
	"time"
)

// This file takes the public-key work of handshakes out of the Core's calls. It
// is what strangers cost most, and whoever is up must not wait for it:
//
//	Handle --> Output.Jobs --> anybody runs them --> Done --> Output
//
// A handshake has one job at a time. What its peer sends meanwhile is held, and
// is taken up when the job is done.

// Job is public-key work for a handshake.
type Job struct {
	ID uint64
	// Run does the work. It is called once, by any goroutine, reads nothing
	// that the Core changes, and draws from Config.Rand. What it gives is for
	// Core.Done.
	Run func() Result
}

// Result is what has come of a Job.
type Result struct{ outcome }

// outcome is the result of a kind of job.
type outcome interface {
	// discard wipes what nobody wants any more.
	discard()
}

const (
	// maxWaiting is how many jobs of one standing wait at most. What would
	// make one more is lost, as UDP may lose it.
	maxWaiting = 1024
	// maxJobBytes bounds the messages that they wait with, for one standing.
	maxJobBytes = 4 << 20
	// maxHeld and maxHeldBytes bound what a peer may send while a job is done
	// for it: the fragments of one message.
	maxHeld      = 16
	maxHeldBytes = 16 << 10
)

// jobs are those of a Core.
type jobs struct {
	waiting [standings]list.List // of *job
	bytes   [standings]int       // of the messages of those that wait or run
	given   map[uint64]*job      // to whoever runs them
	nextID  uint64
	turn    int
}

type job struct {
	id    uint64
	sa    *ikeSA
	s     standing
	place *list.Element // among those that wait; nil: it has been given
	bytes int
	held  []Datagram
	run   func() outcome
	then  func(outcome)
	// cancel, if any, wipes what a job that will not run was to work on.
	cancel func()
}

// work has something done for a handshake, and goes on with then: at once if it
// is cheap, or if there is nobody else to do it. size is how many bytes it keeps
// meanwhile.
func work[T outcome](c *Core, sa *ikeSA, cheap bool, size int, run func() T, then func(T)) {
	if cheap || c.cfg.Jobs == 0 {
		then(run())
		return
	}
	q := &c.jobs
	q.nextID++
	j := &job{id: q.nextID, sa: sa, s: sa.standing, bytes: size, run: func() outcome { return run() }, then: func(o outcome) { then(o.(T)) }}
	j.place = q.waiting[j.s].PushBack(j)
	q.bytes[j.s] += size
	sa.job = j
}

// busy says that a handshake of a standing cannot have another job for a message
// of n bytes.
func (q *jobs) busy(s standing, n int) bool {
	return q.waiting[s].Len() >= maxWaiting || q.bytes[s]+n > maxJobBytes
}

// jobTurns says whose job goes first, turn by turn. Nobody starves.
var jobTurns = [...]standing{proven, proven, unknown, proven, unknown, proven, unknown, suspect}

// next takes the job that is due out of those that wait; nil: there is none.
func (q *jobs) next() *job {
	q.turn = (q.turn + 1) % len(jobTurns)
	for _, s := range [...]standing{jobTurns[q.turn], proven, unknown, suspect} {
		if e := q.waiting[s].Front(); e != nil {
			j := q.waiting[s].Remove(e).(*job)
			j.place = nil
			return j
		}
	}
	return nil
}

// give puts jobs out, as many as may be out at once.
func (c *Core) give() {
	for len(c.jobs.given) < c.cfg.Jobs {
		j := c.jobs.next()
		if j == nil {
			return
		}
		c.jobs.given[j.id] = j
		c.out.Jobs = append(c.out.Jobs, Job{j.id, func() Result { return Result{j.run()} }})
	}
}

// Done brings the result of a job. Every job that was in an Output is to be
// brought back, in any order; that of a handshake which has ended meanwhile is
// wiped.
func (c *Core) Done(now time.Time, id uint64, r Result) Output {
	c.begin(now)
	j := c.jobs.given[id]
	delete(c.jobs.given, id)
	if j == nil || j.sa.job != j {
		r.discard()
		return c.end()
	}
	held := j.held
	c.jobs.leave(j)
	c.guard.waited(j.sa, c.now)
	j.then(r.outcome)
	c.settle(j.sa)
	for _, d := range held {
		c.take(d)
	}
	return c.end()
}

// leave takes a job off its handshake.
func (q *jobs) leave(j *job) {
	q.bytes[j.s] -= j.bytes
	if j.place != nil {
		q.waiting[j.s].Remove(j.place)
		j.place = nil
		if j.cancel != nil {
			j.cancel()
		}
	}
	j.sa.job, j.held = nil, nil
}

// dropJob is for a handshake that ends. What has been given out comes back, and
// is discarded then.
func (c *Core) dropJob(sa *ikeSA) {
	if sa.job != nil {
		c.jobs.leave(sa.job)
	}
}

// hold keeps a datagram of a handshake until its job is done. A retransmission
// of what the job is for is not kept: it will be answered.
func (c *Core) hold(sa *ikeSA, h header, d Datagram) {
	j := sa.job
	again := !h.response() && h.id+1 == sa.nextIn
	for _, x := range j.held {
		again = again || bytes.Equal(x.Data, d.Data)
	}
	size := len(d.Data)
	for _, x := range j.held {
		size += len(x.Data)
	}
	if again || len(j.held) >= maxHeld || size > maxHeldBytes || c.jobs.bytes[j.s]+len(d.Data) > maxJobBytes {
		c.stats.Dropped++
		return
	}
	j.held = append(j.held, d)
	j.bytes += len(d.Data)
	c.jobs.bytes[j.s] += len(d.Data)
}

// given says that somebody may be at the job right now.
func (j *job) given() bool { return j != nil && j.place == nil }

// secret is a job's result that is a shared secret.
type secret struct {
	public, shared []byte
	err            error
}

func (s secret) discard() { wipe(s.shared) }

// half is our half of a key exchange.
type half struct {
	kex keyExchange
	err error
}

func (half) discard() {}
