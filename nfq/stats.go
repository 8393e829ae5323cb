package nfq

import "sync"

// Stats are counters since Open, and what the kernel's queues hold now.
type Stats struct {
	Packets  uint64 // given to the Handler; what came out of an SA and passes a second time is not counted twice
	Bytes    uint64 // their true lengths
	Accepted uint64
	Dropped  uint64 // by verdict, rejected ones included

	Unreadable uint64 // messages of the kernel that made no sense; not in Packets, dropped
	Rejected   uint64 // answered with a reset or an ICMP error
	Suppressed uint64 // rejected, but over the rate of answers
	SendErrors uint64 // verdicts or answers that the kernel would not take

	Sealed uint64 // datagrams that left sealed
	Opened uint64 // packets that arrived sealed and went on opened
	Direct uint64 // of Sealed, those that left by a packet socket: the shortcut
	Unsent uint64 // sealed datagrams or opened packets that the kernel would not take

	NotDirect string // why datagrams in bulk do not take the shortcut; empty if they do, or nobody has asked

	PortTaken string // why ESP in UDP and IKE go without sockets of ours; empty if they do not

	Owned      bool   // the table is ours: nobody else can change it
	Renewed    uint64 // times somebody else had changed the table, and it was put back
	NotRenewed uint64 // times that failed; it is tried again
	ChangedBy  string // who has changed it last, and how, in words; empty: nobody knows

	Flowtables []string // of others, in words: what they carry passes by the forward hook
	Apart      bool     // what is forwarded is kept out of them, because the policy protects ...
	NotApart   string   // ... or why it cannot be; empty if it is, or nothing is protected

	Waiting      uint64 // packets in the queues now
	QueueDropped uint64 // dropped by the kernel: the queue, or the ring that ESP comes by, was full
	UserDropped  uint64 // dropped by the kernel: the socket buffer was full
	NewDropped   uint64 // of both, packets of connections that had not been let through before
	Overruns     uint64 // times the kernel reported lost messages (ENOBUFS)

	Queues []QueueStats // one for each queue
}

// QueueStats is the kernel's account of one queue.
type QueueStats struct {
	Queue        uint16
	Class        string // "live", "whole", "new" or "control"
	Waiting      uint64
	QueueDropped uint64
	UserDropped  uint64
}

// queueStats are the counters of one worker, written by it alone, with the lock
// held: it is free when all packets that the worker has begun with are judged
// and counted.
type queueStats struct {
	sync.Mutex
	packets, bytes, accepted, dropped            counter
	unreadable, rejected, suppressed, sendErrors counter
	sealed, direct, opened, unsent               counter
}

// count counts packets of which the Handler has given a result.
func (s *queueStats) count(n uint64, accepted bool) {
	s.packets.Add(n)
	if accepted {
		s.accepted.Add(n)
	} else {
		s.dropped.Add(n)
	}
}

// StatsWith is Stats, and calls read while no packet is with the Handler: what both
// have counted is then of the same packets. The packets wait meanwhile, so read has
// to be short, and must not wait for a packet.
func (f *Firewall) StatsWith(read func()) Stats {
	s := f.still(read)
	f.addKernel(&s)
	return s
}

func (f *Firewall) still(read func()) Stats {
	for _, s := range f.stats {
		s.Lock()
		defer s.Unlock()
	}
	read()
	return f.counted()
}

// Stats reads all counters. What the kernel counts is 0 where /proc cannot be
// read.
func (f *Firewall) Stats() Stats {
	s := f.counted()
	f.addKernel(&s)
	return s
}

// counted gives what the Firewall has counted itself.
func (f *Firewall) counted() Stats {
	s := Stats{Owned: f.rules.own, Renewed: f.renewed.Load(), NotRenewed: f.notRenewed.Load(), NotDirect: f.shortcut.because()}
	if by := f.changedBy.Load(); by != nil {
		s.ChangedBy = *by
	}
	if list := f.flowtables.Load(); list != nil {
		s.Flowtables = *list
	}
	if why := f.apart.Load(); why != nil {
		s.Apart, s.NotApart = *why == "", *why
	}
	if why := f.portTaken.Load(); why != nil {
		s.PortTaken = *why
	}
	for _, q := range f.stats {
		s.Packets += q.packets.Load()
		s.Bytes += q.bytes.Load()
		s.Accepted += q.accepted.Load()
		s.Dropped += q.dropped.Load()
		s.Unreadable += q.unreadable.Load()
		s.Rejected += q.rejected.Load()
		s.Suppressed += q.suppressed.Load()
		s.SendErrors += q.sendErrors.Load()
		s.Sealed += q.sealed.Load()
		s.Direct += q.direct.Load()
		s.Opened += q.opened.Load()
		s.Unsent += q.unsent.Load()
	}
	return s
}

// addKernel adds what the kernel tells.
func (f *Firewall) addKernel(s *Stats) {
	s.QueueDropped = f.intake.lost()
	for _, r := range f.receivers {
		s.Overruns += r.overruns()
	}
	for _, k := range f.kernelQueues() {
		if k.Queue < f.cfg.Queue || int(k.Queue) >= int(f.cfg.Queue)+f.cfg.Numbers() {
			continue
		}
		s.Waiting += k.Waiting
		s.QueueDropped += k.Dropped
		s.UserDropped += k.UserDropped
		class := f.cfg.class(int(k.Queue - f.cfg.Queue))
		if class == queueNew {
			s.NewDropped += k.Dropped + k.UserDropped
		}
		s.Queues = append(s.Queues, QueueStats{k.Queue, class.String(), k.Waiting, k.Dropped, k.UserDropped})
	}
}

// kernelQueues reads /proc through the file that Open has opened in its
// network namespace.
func (f *Firewall) kernelQueues() []queueLine {
	if f.proc == nil {
		return nil
	}
	f.procMu.Lock()
	defer f.procMu.Unlock()
	b := make([]byte, 0, 4096)
	for {
		n, err := f.proc.ReadAt(b[len(b):cap(b)], int64(len(b)))
		b = b[:len(b)+n]
		if err != nil || n == 0 || len(b) == cap(b) {
			return parseQueues(b)
		}
	}
}
