package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ipfw/ipfw/bench/internal/report"
)

// workload is something that a contestant has to carry.
type workload struct {
	name, title string
	rules       []int                    // sizes of the policy that it is measured with
	who         func(c *contestant) bool // nil: everybody
	run         func(s *site) []figure
}

// figure is one number that a workload gives; the workload's own name, or one
// of those that it measures by the way.
type figure struct {
	workload string
	unit     report.Unit
	value    float64
}

// The names that figures are kept by.
const (
	tcpOne   = "tcp1"
	tcpMany  = "tcp8"
	udpSmall = "udp64"
	udpSent  = "udp64-sent"
	connRate = "conn"
	cpuPerGB = "cpu"
)

var (
	gbits     = report.Unit{Name: "Gbit/s"}
	kpps      = report.Unit{Name: "kpkt/s"}
	perSecond = report.Unit{Name: "1/s"}
	cpuSecond = report.Unit{Name: "s/GB", Less: true}
)

var workloads = []workload{
	{tcpOne, "One TCP stream (iperf3)", few, nil, func(s *site) []figure { return runTCP(s, tcpOne, 1) }},
	{tcpMany, "Eight TCP streams (iperf3: one thread on each side)", few, nil, func(s *site) []figure { return runTCP(s, tcpMany, 8) }},
	{udpSmall, "Datagrams of 64 bytes, as many as one thread can send: those that arrive", few, nil, runUDP},
	{connRate, "New connections, one short HTTP request each (nginx)", []int{fewRules, manyRules}, nil, runConnect},
	{requestRate, "HTTP requests over 16 connections that stay", few, nil, runRequest},
	{memory, fmt.Sprintf("Memory of the daemon with %d flows", manyFlows), []int{manyRules}, isDaemon, runMemory},
}

var few = []int{fewRules}

func isDaemon(c *contestant) bool {
	name := strings.TrimSuffix(c.name, beforeSuffix)
	return name == ipfwFlow || name == ipfwNone
}

// workers is how many connections are open at the same time.
const workers = 16

func (s *site) milliseconds() string { return fmt.Sprint(s.b.length.Milliseconds()) }

func runTCP(s *site, name string, streams int) []figure {
	before, err := busySeconds()
	s.check(err, "processor time")
	args := []string{"iperf3", "-J", "-i", "0", "-c", s.target, "-p", fmt.Sprint(iperfPort),
		"-t", fmt.Sprintf("%.0f", max(s.b.length.Seconds(), 1)), "-P", fmt.Sprint(streams)}
	if c := s.b.Congestion; c != "" {
		args = append(args, "-C", c)
	}
	out := s.client.Run(args...)
	after, err := busySeconds()
	s.check(err, "processor time")
	var r struct {
		End struct {
			Received struct {
				Bytes         float64 `json:"bytes"`
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	s.check(json.Unmarshal([]byte(out), &r), "iperf3's report")
	if r.End.Received.Bytes == 0 {
		s.Fatalf("iperf3 carried nothing")
	}
	fs := []figure{{name, gbits, r.End.Received.BitsPerSecond / 1e9}}
	if streams == 1 {
		fs = append(fs, figure{cpuPerGB, cpuSecond, (after - before) / (r.End.Received.Bytes / 1e9)})
	}
	return fs
}

// tail is how much longer datagrams are sent than counted, so that the counter
// comes to its end.
const tail = 200 * time.Millisecond

func runUDP(s *site) []figure {
	counter := s.reader(s.server, "ready", s.b.udp, "count", fmt.Sprint(udpPort), s.milliseconds())
	sent := s.client.Run(s.b.udp, "send", s.target, fmt.Sprint(udpPort), "64", fmt.Sprint((s.b.length + tail).Milliseconds()))
	n, err := strconv.ParseFloat(counter.line(s), 64)
	s.check(err, "counter")
	if n == 0 {
		s.Fatalf("no datagram arrived")
	}
	all, err := strconv.ParseFloat(strings.TrimSpace(sent), 64)
	s.check(err, "sender")
	return []figure{
		{udpSmall, kpps, n / s.b.length.Seconds() / 1e3},
		{udpSent, kpps, all / (s.b.length + tail).Seconds() / 1e3},
	}
}

func runConnect(s *site) []figure {
	r := s.ask("connect", s.web(), s.milliseconds(), fmt.Sprint(workers))
	return []figure{{connRate, perSecond, float64(r.Done) / r.Seconds}}
}

// errUnanswered says that a contestant carried fewer requests than would make a
// figure.
var errUnanswered = errors.New("requests without an answer")

// ask runs a role on the client that asks the web server.
func (s *site) ask(args ...string) requests {
	out := s.client.Run(append([]string{s.b.self, "role"}, args...)...)
	var r requests
	s.check(json.Unmarshal([]byte(out), &r), strings.Join(args, " "))
	if r.Done == 0 || r.Failed > r.Done/100 {
		s.Fatalf("%s: %w: %d answered, %d not", strings.Join(args, " "), errUnanswered, r.Done, r.Failed)
	}
	return r
}
