package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// demoPorts are the ports with a server behind; 443 speaks TLS.
var demoPorts = []uint16{80, 443, 22, 5432}

// servers are the HTTP servers of the demo.
type servers struct {
	all   []*http.Server
	roots *x509.CertPool // who signs port 443: itself
	open  atomic.Int64   // connections
}

// startServers starts one server for each port in a namespace, for both
// address families.
func startServers(n *namespace, ports ...uint16) (_ *servers, err error) {
	cert, roots, err := selfSigned()
	if err != nil {
		return nil, fmt.Errorf("cannot make a certificate: %w", err)
	}
	s := &servers{roots: roots}
	for _, port := range ports {
		var l net.Listener
		err := n.do(func() (err error) {
			l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
			return err
		})
		if err != nil {
			s.close()
			return nil, fmt.Errorf("cannot listen in the demo's namespace: %w", err)
		}
		if port == 443 {
			l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}})
		}
		server := &http.Server{
			ReadHeaderTimeout: 5 * time.Second,
			ConnState:         s.connState,
			ErrorLog:          log.New(io.Discard, "", 0),
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, greeting(port, r.RemoteAddr))
			}),
		}
		s.all = append(s.all, server)
		go server.Serve(l)
	}
	return s, nil
}

// connState counts the connections that a server has.
func (s *servers) connState(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.open.Add(-1)
	}
}

// over waits until the servers, too, are done with their connections, so that no
// packet of one comes when the next is counted.
func (s *servers) over(ctx context.Context) {
	const step, most = 2 * time.Millisecond, 2500
	for i := 0; i < most && s.open.Load() > 0 && ctx.Err() == nil; i++ {
		time.Sleep(step)
	}
}

func (s *servers) close() {
	for _, server := range s.all {
		server.Close()
	}
}

// greeting is what the server on a port answers to a caller.
func greeting(port uint16, remote string) string {
	host, _, _ := net.SplitHostPort(remote)
	return fmt.Sprintf("hello %s from port %d", host, port)
}

// get makes the connection of a probe from a namespace and asks the server
// for its greeting. What is not the right greeting is an error. The connection
// is over on both sides when get returns.
func (s *servers) get(ctx context.Context, from *namespace, p *probe) (string, error) {
	var made atomic.Pointer[net.TCPConn]
	defer func() {
		if c := made.Load(); c != nil {
			c.Close() // the transport will too, in its own time
		}
		s.over(ctx)
	}()
	patience := silence
	if p.Expected == "bypass" || p.Expected == "protect" {
		patience = demoPatience // it comes, though late on a busy machine
	}
	source := net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(p.From), 0))
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: s.roots},
		DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
			d := net.Dialer{Timeout: patience, LocalAddr: source}
			// The address is a number, so the socket is made in this
			// thread and not by a resolver's goroutine.
			err = from.do(func() (err error) { c, err = d.DialContext(ctx, network, addr); return err })
			if tcp, ok := c.(*net.TCPConn); ok && err == nil {
				made.Store(tcp)
			}
			if err == nil && p.wrap != nil {
				c = p.wrap(c)
			}
			return c, err
		},
	}}
	scheme := "http"
	if p.port == 443 {
		scheme = "https"
	}
	// Once connected, an answer may take its time on a busy machine.
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", scheme+"://"+p.To+"/"+strings.TrimPrefix(p.path, "/"), nil)
	if err != nil {
		return "", err
	}
	res, err := client.Do(req)
	if err != nil {
		var inner interface{ Unwrap() error }
		if errors.As(err, &inner) && inner.Unwrap() != nil {
			err = inner.Unwrap()
		}
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	if err != nil {
		return "", err
	}
	if want := greeting(p.port, net.JoinHostPort(p.From, "0")); string(body) != want || res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("wrong answer %q, want %q", body, want)
	}
	return strings.ToUpper(scheme) + " " + res.Status, nil
}

// selfSigned makes the certificate of port 443 and the pool that trusts it.
func selfSigned() (tls.Certificate, *x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ipfw demo"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, a := range serverAddrs {
		t.IPAddresses = append(t.IPAddresses, a.AsSlice())
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots, nil
}
