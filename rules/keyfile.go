package rules

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/ipfw/ipfw/esp"
)

// Keys are the keys of a manual block, as esp takes them. Whoever is done with
// them calls Wipe.
type Keys struct {
	EncryptionIn, IntegrityIn   esp.Key
	EncryptionOut, IntegrityOut esp.Key
}

// Wipe overwrites the keys with zeros.
func (k *Keys) Wipe() {
	for _, key := range []esp.Key{k.EncryptionIn, k.IntegrityIn, k.EncryptionOut, k.IntegrityOut} {
		key.Wipe()
	}
}

// maxKeyFile is far more than any key file needs.
const maxKeyFile = 64 << 10

// ReadKeys reads the key file of a manual block: one line for each key,
//
//	encryption_in  = 603deb10...    hexadecimal, "0x" and colons may be there
//	integrity_in   = ...
//	encryption_out = ...
//	integrity_out  = ...
//
// with empty lines and # comments between. "in" is what this host receives:
// on the peer the same keys stand under "out". The lengths have to be those
// of the algorithms. A file that others can read is refused. Errors never
// quote what is in the file.
func (m *Manual) ReadKeys() (*Keys, error) {
	text, err := ReadSecret(m.KeyFile)
	defer clear(text)
	if err != nil {
		return nil, err
	}
	k := &Keys{}
	if err := k.parse(text, m); err != nil {
		k.Wipe()
		return nil, fmt.Errorf("%s: %w", m.KeyFile, err)
	}
	return k, nil
}

// ReadSecret reads a file that holds secrets, of at most 64 KiB. One that
// others can read, or that belongs to another user, is refused. Whoever is done
// with the bytes clears them. Errors never quote what is in the file.
func ReadSecret(path string) ([]byte, error) {
	f, info, err := openFile(path)
	if err != nil {
		return nil, secretError(path, err)
	}
	defer f.Close()
	if err := checkSecret(path, info); err != nil {
		return nil, err
	}
	text, err := readUpTo(f, path, maxKeyFile)
	if err != nil {
		return nil, secretError(path, err)
	}
	return text, nil
}

func (k *Keys) parse(text []byte, m *Manual) error {
	enc, integ := encryptions[m.Encryption].Key, integrities[m.Integrity].Key
	want := []struct {
		name string
		key  *esp.Key
		size int
	}{
		{"encryption_in", &k.EncryptionIn, enc}, {"integrity_in", &k.IntegrityIn, integ},
		{"encryption_out", &k.EncryptionOut, enc}, {"integrity_out", &k.IntegrityOut, integ},
	}
	n := 0
	for line := range bytes.Lines(text) { // no copy of the keys is made
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		name, value, found := bytes.Cut(line, []byte("="))
		at := -1
		for i := range want {
			if found && string(bytes.TrimSpace(name)) == want[i].name {
				at = i
			}
		}
		switch {
		case at < 0:
			return fmt.Errorf("line %d is none of encryption_in, integrity_in, encryption_out and integrity_out, followed by = and a key in hexadecimal", n)
		case want[at].key.Len() > 0:
			return fmt.Errorf("line %d gives %s a second time", n, want[at].name)
		case want[at].size == 0:
			return fmt.Errorf("line %d gives %s, but the algorithm takes no key: remove the line", n, want[at].name)
		}
		key, err := parseKey(value)
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		*want[at].key = esp.NewKey(key)
		clear(key)
		if len(key) != want[at].size {
			return fmt.Errorf("line %d: %s has %d bytes, but %s takes %d", n, want[at].name, len(key), m.algorithm(at), want[at].size)
		}
	}
	for _, w := range want {
		if w.size > 0 && w.key.Len() == 0 {
			return fmt.Errorf("%s is missing", w.name)
		}
	}
	return nil
}

func (m *Manual) algorithm(line int) string {
	if line%2 == 0 {
		return m.Encryption
	}
	return m.Integrity
}

// parseKey reads hexadecimal digits; its error says nothing of them.
func parseKey(value []byte) ([]byte, error) {
	digits := make([]byte, 0, len(value))
	for _, c := range bytes.TrimPrefix(bytes.TrimSpace(value), []byte("0x")) {
		if c != ':' && c != ' ' {
			digits = append(digits, c)
		}
	}
	defer clear(digits)
	key := make([]byte, hex.DecodedLen(len(digits)))
	if _, err := hex.Decode(key, digits); err != nil || len(key) == 0 {
		clear(key)
		return nil, errors.New("the key is not an even number of hexadecimal digits")
	}
	return key, nil
}

// checkSecret refuses a file that anybody but its owner can read or write, or
// that belongs to another user.
func checkSecret(path string, info fs.FileInfo) error {
	if mode := info.Mode(); !mode.IsRegular() {
		return checkRegular(path, info)
	} else if perm := mode.Perm(); perm&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o, so that others can get at the keys: chmod 600 %s, and consider the keys known", path, perm, path)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d: it has to belong to root or to the user that ipfw runs as", path, st.Uid)
	}
	return nil
}

func secretError(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be read by this user (%w)", path, fs.ErrPermission)
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return fmt.Errorf("%s cannot be read: %w", path, pe.Err)
	}
	return err // it says which
}

// secretFile checks a file that holds secrets; true means that it is there
// and that nobody else can read it.
func (k block) secretFile(arg, path string) bool {
	info, ok := k.stat(arg, path)
	if !ok {
		return false
	}
	if err := checkSecret(path, info); err != nil {
		k.l.fail(k.at(arg), "Key file refused", "%s.", upperFirst(err.Error()))
		return false
	}
	return true
}

// plainFile checks that a file that holds no secret, or the folder of public
// keys, is there.
func (k block) plainFile(arg, path string) {
	info, ok := k.stat(arg, path)
	if !ok {
		return
	}
	var err error
	if arg == "public_keys" {
		_, err = FilesIn(path, ".pub")
	} else {
		err = checkRegular(path, info)
	}
	if err != nil {
		k.l.fail(k.at(arg), "Wrong file", "%s.", upperFirst(err.Error()))
	}
}

// stat looks at the file of an argument. That it is not there is an error for
// the daemon, a warning for a dry run, and as it should be for a profile.
func (k block) stat(arg, path string) (fs.FileInfo, bool) {
	if path == "" {
		return nil, false
	}
	info, err := os.Stat(path)
	if err == nil {
		return info, true
	}
	text := upperFirst(secretError(path, err).Error())
	switch {
	case k.l.opts.CheckFiles:
		k.l.fail(k.at(arg), "File missing", "%s%s.", text, howToMake(arg, path))
	case !k.l.dirs[k.b.TypeRange.Filename].profile:
		k.l.caution(k.at(arg), "File missing", "%s: the daemon would not start with this policy.", text)
	}
	return nil, false
}

// tryKeys reads the key file once, so that a mistake in it is found with the
// others and not when the daemon installs the SA.
func (k block) tryKeys(m *Manual) {
	keys, err := m.ReadKeys()
	switch {
	case err == nil:
		keys.Wipe()
	case errors.Is(err, fs.ErrPermission) && !k.l.opts.CheckFiles:
		k.l.caution(k.at("key_file"), "Key file not checked", "%s: run as root to check it.", upperFirst(err.Error()))
	default:
		k.l.fail(k.at("key_file"), "Key file refused", "%s.", upperFirst(err.Error()))
	}
}

// howToMake says how the file of an argument comes about, "" if somebody else
// makes it.
func howToMake(arg, path string) string {
	switch arg {
	case "private_key":
		// A name that ipfw's own command makes.
		if name, ok := strings.CutSuffix(filepath.Base(path), ".key"); ok {
			return fmt.Sprintf(": make it with `ipfw pki key %s --dir %s`, which prints the public half (for a certificate, with `ipfw pki issue %[1]s --dir %[2]s`), or by openssl genpkey, mode 0600", name, filepath.Dir(path))
		}
		return fmt.Sprintf(": make it with openssl genpkey -algorithm ed25519 -out %s, mode 0600", path)
	case "public_keys":
		return ": make the folder, and put the public key of each peer there as NAME.pub (openssl pkey -in ITS.key -pubout), where NAME is its identity"
	case "psk_file":
		return fmt.Sprintf(": make it with openssl rand -base64 32 >%s, mode 0600", path)
	case "key_file":
		return ": it has a line for each key, encryption_in, integrity_in, encryption_out and integrity_out (openssl rand -hex 32 makes one), mode 0600"
	}
	return ""
}
