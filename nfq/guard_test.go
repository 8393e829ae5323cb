package nfq

import (
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Who has changed the table is named as whoever reads it can find them: in a
// container the kernel's number is one of the host's.
func TestChangeIsToldWithItsProcess(t *testing.T) {
	b, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_GEN_PROC_PID, Data: big32(4301)},
		{Type: unix.NFTA_GEN_PROC_NAME, Data: []byte("nft\x00")},
	})
	if err != nil {
		t.Fatal(err)
	}
	end := netlink.Message{Data: append(make([]byte, sizeofNfgenmsg), b...)}
	change := tableChange{unix.NFT_MSG_DELTABLE: 1}
	for ours, want := range map[bool]string{
		true:  "nft (process 4301) deleted it",
		false: "nft (process 4301 outside this container) deleted it",
	} {
		if got := change.by(end, ours); got != want {
			t.Errorf("ours %v: %q, want %q", ours, got, want)
		}
	}
	end.Data = end.Data[:sizeofNfgenmsg]
	if got := change.by(end, true); !strings.HasPrefix(got, "a process that the kernel does not name") {
		t.Errorf("without a name: %q", got)
	}
}
