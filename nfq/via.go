package nfq

import (
	"crypto/rand"
	"encoding/binary"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// This file ties a connection that the kernel answers for to its interfaces,
// where the policy names some. Then what the policy says of it may change when
// a route does, and a packet that goes by an interface for which nobody was
// asked must come up:
//
//	set via {
//		typeof meta mark . ct id . meta iifname . meta oifname; flags dynamic, timeout; timeout 1m; size 262144
//	}
//	chain forward {                              # input with an empty oifname, output with an empty iifname
//		ct mark & 0xfd000000 == 0x59000000  ct state & related == 0  EPOCH . ct id . iifname . oifname @via  accept
//	chain forward_save {
//		meta mark & 0xf1000000 == 0x50000000  update @via { EPOCH . ct id . iifname . oifname }
//
// EPOCH is a number of the table: what another policy has let pass by an
// interface never counts. Names are compared as the policy does, so that an
// interface with a new name is another one. Of each direction the first packet
// comes up, and one more each time that its element has expired; where a kernel
// gives no id to a connection that it has just made, the second as well. A set
// that is full takes nothing in, and then all packets of what is not in it come
// up. Connections that were cut are left to the daemon.
const (
	viaName    = "via"
	viaSize    = 1 << 18
	viaTimeout = time.Minute

	// The key is one run of registers of 32 bits. The first of them, NFT_REG32_00,
	// is NFT_REG_1 as well, and the kernel names it so.
	viaEpoch  = 1
	viaID     = 9
	viaInput  = 10
	viaOutput = 14

	ctKeyID       = 23   // NFT_CT_ID
	setConcat     = 0x80 // NFT_SET_CONCAT
	setDescConcat = 2    // NFTA_SET_DESC_CONCAT
	setFieldLen   = 1    // NFTA_SET_FIELD_LEN
)

// newEpoch gives a number that no other table has had, but by a chance of one
// in four billion. It is never 0.
func newEpoch() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return max(binary.NativeEndian.Uint32(b[:]), 1)
}

// viaSet makes the set in a table that may have it.
func (x *transaction) viaSet(fam nftables.TableFamily, table string) {
	const flags = unix.NFT_SET_TIMEOUT | unix.NFT_SET_EVAL | setConcat
	var fields []netlink.Attribute
	var types, size uint32
	for _, t := range []nftables.SetDatatype{nftables.TypeMark, nftables.TypeMark, nftables.TypeIFName, nftables.TypeIFName} {
		fields = append(fields, x.nest(unix.NFTA_LIST_ELEM, wordAttr(setFieldLen, t.Bytes)))
		types, size = types<<nftables.SetConcatTypeBits|t.GetNFTMagic(), size+t.Bytes
	}
	x.add(unix.NFT_MSG_NEWSET, fam, netlink.Create,
		textAttr(unix.NFTA_SET_TABLE, table), textAttr(unix.NFTA_SET_NAME, viaName), wordAttr(unix.NFTA_SET_ID, 1),
		wordAttr(unix.NFTA_SET_FLAGS, flags), wordAttr(unix.NFTA_SET_KEY_TYPE, types), wordAttr(unix.NFTA_SET_KEY_LEN, size),
		x.nest(unix.NFTA_SET_DESC, wordAttr(unix.NFTA_SET_DESC_SIZE, viaSize), x.nest(setDescConcat, fields...)),
		netlink.Attribute{Type: unix.NFTA_SET_TIMEOUT, Data: binary.BigEndian.AppendUint64(nil, uint64(viaTimeout.Milliseconds()))})
}

// viaKey loads a packet's key.
func (t *tableSpec) viaKey(hook string) []expr.Any {
	name := func(has bool, key expr.MetaKey, register uint32) expr.Any {
		if has {
			return &expr.Meta{Key: key, Register: register}
		}
		return &expr.Immediate{Register: register, Data: make([]byte, unix.IFNAMSIZ)}
	}
	return []expr.Any{
		&expr.Immediate{Register: viaEpoch, Data: native32(t.via)},
		&expr.Ct{Key: ctKeyID, Register: viaID},
		name(hook != "output", expr.MetaKeyIIFNAME, viaInput),
		name(hook != "input", expr.MetaKeyOIFNAME, viaOutput),
	}
}

// isVia matches what the daemon has let pass by its interfaces; nothing where
// the policy names none.
func (t *tableSpec) isVia(hook string) []expr.Any {
	if t.via == 0 {
		return nil
	}
	return append(t.viaKey(hook), &expr.Lookup{SourceRegister: viaEpoch, SetName: viaName})
}

// setVia notes that it does so.
func (t *tableSpec) setVia(hook string) []expr.Any {
	return append(t.viaKey(hook), &expr.Dynset{SrcRegKey: viaEpoch, SetName: viaName, Operation: unix.NFT_DYNSET_OP_UPDATE})
}
