package esp

// alive says whether the SA may still be used at this time; what a packet
// itself adds is counted by seen.
func (sa *SA) alive(now int64) Fault {
	h := &sa.cfg.Hard
	switch {
	case sa.closed.Load():
		return Closed
	case h.Time != 0 && now-sa.cfg.Created >= int64(h.Time):
		return Expired
	case h.Bytes != 0 && sa.bytes.Load() >= h.Bytes:
		return Expired
	case h.Packets != 0 && sa.cfg.Direction == In && sa.count.Load() >= h.Packets:
		return Expired
	}
	return OK
}

// reserve takes n sequence numbers, of which first is the lowest.
func (sa *SA) reserve(n uint64) (first uint64, f Fault) {
	last, f := sa.lastSeq, Exhausted
	if h := sa.cfg.Hard.Packets; h != 0 && sa.start.Load()+h < last {
		last, f = sa.start.Load()+h, Expired
	}
	for {
		seq := sa.seq.Load()
		if seq > last || last-seq < n {
			return 0, f
		}
		if sa.seq.CompareAndSwap(seq, seq+n) {
			return seq + 1, OK
		}
	}
}

// seen adds n bytes and says whether it is time for another SA.
func (sa *SA) seen(n int, packets uint64, now int64) (rekey bool) {
	total := sa.bytes.Add(uint64(n))
	// Many cores write this; once in a while is enough, and spares the bus.
	if now-sa.used.Load() > 1e8 {
		sa.used.Store(now)
	}
	s := &sa.cfg.Soft
	if packets < sa.softSeq && (s.Bytes == 0 || total < s.Bytes) && (s.Time == 0 || now-sa.cfg.Created < int64(s.Time)) {
		return false
	}
	return sa.tell()
}

// tell gives true once in the life of the SA.
func (sa *SA) tell() bool { return !sa.told.Load() && sa.told.CompareAndSwap(false, true) }

// Due is for a timer: it says whether the SA's time is over (Expired, Closed)
// and, once in all, whether it is time for another. An SA that carries no
// traffic learns of its age here only.
func (sa *SA) Due(now int64) (rekey bool, f Fault) {
	if f := sa.alive(now); f != OK {
		return false, f
	}
	if sa.cfg.Direction == Out && sa.cfg.Hard.Packets != 0 && sa.seq.Load()-sa.start.Load() >= sa.cfg.Hard.Packets {
		return false, Expired
	}
	if s := sa.cfg.Soft.Time; s != 0 && now-sa.cfg.Created >= int64(s) {
		return sa.tell(), OK
	}
	return false, OK
}
