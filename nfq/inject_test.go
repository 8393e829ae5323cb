package nfq

import (
	"testing"
)

// The address towards one peer is not that towards the one asked about before.
func TestSourceFor(t *testing.T) {
	a, b := newHost(t), newHost(t)
	wire(a, b, 0)
	wire(a, b, 1)
	a.try(func() error {
		i, err := openInjector(0, credential{}, new(awake))
		if err != nil {
			return err
		}
		for range 2 {
			for n := range 2 {
				if got, want := i.sourceFor(addr4(n, 2), 0), addr4(n, 1); got != want {
					t.Errorf("towards %s: %s, want %s", addr4(n, 2), got, want)
				}
				if got, want := i.sourceFor(addr6(n, 2), 0), addr6(n, 1); got != want {
					t.Errorf("towards %s: %s, want %s", addr6(n, 2), got, want)
				}
			}
		}
		return i.close()
	})
}
