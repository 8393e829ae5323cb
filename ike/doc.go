// Package ike is an IKEv2 endpoint (RFC 7296) without sockets, clock or
// goroutines: datagrams and the time go in, datagrams, SAs to install and the
// time of the next timer come out.
//
//	        Handle(now, datagram)   Tick(now)   Initiate, Rekey, Terminate
//	                  \                |                /
//	header -> payloads -> sealer -> ikeSA (window, queue) -> task
//	                                   |
//	                   Output{Actions, Send, Events}, Next()
//
// One request of ours is under way for each IKE SA; every exchange we start is
// a task in its queue. The SAs that come out are for whoever holds the SAD:
// Install before the datagrams of the same Output go out.
//
// Extensions: fragmentation (RFC 7383), IKE_INTERMEDIATE (RFC 9242), additional
// key exchanges with ML-KEM-768 (RFC 9370), post-quantum pre-shared keys
// (RFC 8784), signatures by RFC 7427 and 8420, raw public keys (RFC 7670),
// MOBIKE (RFC 4555), childless IKE SAs (RFC 6023), EAP at the responder, full
// transcript authentication (draft-ietf-ipsecme-ikev2-downgrade-prevention-08).
//
// Limits: no EAP as initiator, no IPComp, no redirect, no session resumption, no IKEv1. The
// window is one request each way. MODP groups are not constant time (see
// modp.go). Which of several peers in transport mode behind one NAT a packet is
// for, the SAD has to know. Additional addresses of a MOBIKE peer are not probed. Certificates come in
// IKE_AUTH only, never by URL, and OCSP is not asked. A raw public key is sent
// to a peer that asks for one, and asked of nobody: the peer's is known, or it
// is not let in.
package ike
