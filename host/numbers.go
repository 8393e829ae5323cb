package host

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// DefaultStateDir is where the daemon keeps what must outlive it.
const DefaultStateDir = "/var/lib/ipfw"

// numbers keeps the sequence numbers of SAs whose keys were set by hand in
// files, one for each SA, so that they go on where they were when the daemon
// comes back: a peer that looks for replays refuses a number it has seen.
//
// Outbound the file is ahead of the SA, inbound it may be behind by what came
// in the last second before a crash, which can then be played once more.
// Without a folder they are kept for as long as the daemon runs. Safe for
// concurrent use.
type numbers struct {
	dir string
	log *slog.Logger

	mu      sync.Mutex
	saved   map[[32]byte]uint64 // what the files hold, or would
	failing bool                // it was said
}

// ahead is how many numbers an outbound SA may use before its file is written
// again; more than can be sent in the seconds between two looks.
const ahead = 1 << 23

func newNumbers(dir string, log *slog.Logger) *numbers {
	return &numbers{dir: dir, log: log, saved: map[[32]byte]uint64{}}
}

func (n *numbers) path(id [32]byte) string {
	return filepath.Join(n.dir, "sa-"+hex.EncodeToString(id[:16])+".seq")
}

// load gives the number that an SA goes on from, 0 for one that is new.
//
// A file that cannot be read, or holds no number, is no reason not to start: lost
// says what is wrong, and the SA has no numbers left. Whatever number it went on
// from could be one that it has used (RFC 4303 section 3.3.3), or one that somebody
// plays once more; only new keys help. A damaged file is set aside, and another says
// the same to the next run.
func (n *numbers) load(id [32]byte) (seq uint64, lost error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if seq, ok := n.saved[id]; ok || n.dir == "" {
		return seq, nil
	}
	b, err := os.ReadFile(n.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return noneLeft, fmt.Errorf("the sequence number of the last run cannot be read (%w): nothing is sent or taken until the daemon starts with a readable file, or the SA has new keys", err)
	}
	seq, err = strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err == nil {
		return seq, nil
	}
	aside := n.path(id) + ".damaged"
	lost = fmt.Errorf("%s holds no sequence number, and is set aside as %s: nothing is sent or taken until the SA has new keys", n.path(id), filepath.Base(aside))
	if err := os.Rename(n.path(id), aside); err != nil {
		lost = fmt.Errorf("%s holds no sequence number: nothing is sent or taken until the SA has new keys", n.path(id))
	}
	n.write(id, noneLeft)
	return noneLeft, lost
}

// noneLeft is where an SA is that has no sequence numbers left, of 32 bits or of 64.
// It leaves room for ahead.
const noneLeft = 1<<64 - 1 - 2*ahead

// save writes where an SA is, if it has moved on.
func (n *numbers) save(id [32]byte, outbound bool, seq uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	was, known := n.saved[id]
	if outbound {
		if known && seq+ahead/2 <= was {
			return
		}
		seq = min(seq, noneLeft) + ahead
	} else if seq == 0 || known && seq == was {
		return
	}
	n.write(id, seq)
}

// write is called with n.mu held.
func (n *numbers) write(id [32]byte, seq uint64) {
	n.saved[id] = seq
	if n.dir == "" {
		return
	}
	err := os.MkdirAll(n.dir, 0o700)
	if err == nil {
		err = replaceFile(n.path(id), fmt.Appendln(nil, seq))
	}
	if err != nil && !n.failing {
		n.log.Warn("sequence numbers of manual SAs are not kept: after a restart peers that look for replays may refuse what this host sends", "error", err)
	}
	n.failing = err != nil
}

// replaceFile puts a file in the place of another, whole: after a loss of power
// there is the one or the other.
func replaceFile(path string, text []byte) (err error) {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync()); err != nil {
		return errors.Join(err, f.Close())
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(path+".new", path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// exact writes where an SA has ended, which costs no numbers.
func (n *numbers) exact(id [32]byte, seq uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if seq != 0 {
		n.write(id, seq)
	}
}

// atLeast writes where an SA has ended, unless what is written lies behind it.
func (n *numbers) atLeast(id [32]byte, seq uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if seq > n.saved[id] {
		n.write(id, seq)
	}
}
