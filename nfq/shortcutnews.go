package nfq

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Groups of the news that ways hang on. That of nftables the guard hears.
var (
	shortcutGroups = []uint32{
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_NEXTHOP,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_IPV6_IFINFO,
	}
	xfrmGroups = []uint32{xfrmGroupPolicy}
)

// newsBuffer is how many bytes of news may wait.
const newsBuffer = 1 << 20

// join has the news come.
func (s *shortcut) join() error {
	for i, groups := range [][]uint32{shortcutGroups, xfrmGroups}[:len(s.news)] {
		if err := s.news[i].SetReadBuffer(newsBuffer); err != nil {
			return fmt.Errorf("buffer for news: %w", err)
		}
		for _, g := range groups {
			if err := s.news[i].JoinGroup(g); err != nil {
				return fmt.Errorf("news group %d: %w", g, err)
			}
		}
	}
	return nil
}

// follow undoes ways at news until the socket is closed. After an overrun
// (ENOBUFS) there is no telling what has changed.
func (s *shortcut) follow(c *netlink.Conn) {
	for {
		msgs, err := c.Receive()
		if isClosed(err) {
			return
		}
		if err != nil {
			s.undo()
			continue
		}
		for _, m := range msgs {
			s.hear(m)
		}
	}
}

// undo closes all ways: what is in the way of any has to be looked for again.
func (s *shortcut) undo() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard++
	s.dirty = true
	s.ways.Store(new(map[netip.Addr]*shortWay))
}

// hear takes in one piece of news. What is about one link, neighbour or route
// concerns the ways over it, or to where it leads; all else every way.
func (s *shortcut) hear(m netlink.Message) {
	concerns := func(*shortWay) bool { return true }
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(m.Data) >= unix.SizeofIfInfomsg {
			index := binary.NativeEndian.Uint32(m.Data[4:])
			concerns = func(w *shortWay) bool { return w.link == index }
		}
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		n, err := parseNeighbour(m)
		if err == nil {
			concerns = func(w *shortWay) bool {
				return w.link == n.link && w.hop == n.addr && !(n.good() && n.mac == w.mac)
			}
		}
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		r, err := parseRoute(m)
		if err == nil {
			concerns = func(w *shortWay) bool { return r.dst.Contains(w.to) }
		}
	default:
		s.undo()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard++
	was := *s.ways.Load()
	ways := maps.Clone(was)
	maps.DeleteFunc(ways, func(_ netip.Addr, w *shortWay) bool { return concerns(w) })
	if len(ways) < len(was) {
		s.ways.Store(&ways)
	}
}
