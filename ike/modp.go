package ike

import (
	"errors"
	"fmt"
	"io"
	"math/big"
)

// modpGroups are the primes of RFC 3526; the generator is always 2.
//
// math/big is not constant time. The exponent is new for every exchange, so
// an observer gets one measurement of each; who cannot accept that leaves
// these groups out of the policy, which needs them only for old peers.
var modpGroups = map[uint16]*big.Int{
	KEMODP2048: hexInt("" +
		"ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd" +
		"ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed" +
		"ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f" +
		"83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b" +
		"e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa0510" +
		"15728e5a8aacaa68ffffffffffffffff"),
	KEMODP3072: hexInt("" +
		"ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd" +
		"ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed" +
		"ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f" +
		"83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b" +
		"e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa0510" +
		"15728e5a8aaac42dad33170d04507a33a85521abdf1cba64ecfb850458dbef0a8aea71575d060c7db3970f85a6e1e4c7" +
		"abf5ae8cdb0933d71e8c94e04a25619dcee3d2261ad2ee6bf12ffa06d98a0864d87602733ec86a64521f2b18177b200c" +
		"bbe117577a615d6c770988c0bad946e208e24fa074e5ab3143db5bfce0fd108e4b82d120a93ad2caffffffffffffffff"),
	KEMODP4096: hexInt("" +
		"ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd" +
		"ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed" +
		"ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f" +
		"83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b" +
		"e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa0510" +
		"15728e5a8aaac42dad33170d04507a33a85521abdf1cba64ecfb850458dbef0a8aea71575d060c7db3970f85a6e1e4c7" +
		"abf5ae8cdb0933d71e8c94e04a25619dcee3d2261ad2ee6bf12ffa06d98a0864d87602733ec86a64521f2b18177b200c" +
		"bbe117577a615d6c770988c0bad946e208e24fa074e5ab3143db5bfce0fd108e4b82d120a92108011a723c12a787e6d7" +
		"88719a10bdba5b2699c327186af4e23c1a946834b6150bda2583e9ca2ad44ce8dbbbc2db04de8ef92e8efc141fbecaa6" +
		"287c59474e6bc05d99b2964fa090c3a2233ba186515be7ed1f612970cee2d7afb81bdd762170481cd0069127d5b05aa9" +
		"93b4ea988d8fddc186ffb7dc90a6c08f4df435c934063199ffffffffffffffff"),
}

func hexInt(s string) *big.Int { n, _ := new(big.Int).SetString(s, 16); return n }

// exponentLen is the length of a private exponent in bytes: twice the
// strength of the largest group (RFC 3526 section 8: about 150 bits).
const exponentLen = 48

type modp struct {
	id   uint16
	x, y *big.Int // private exponent, 2^x
}

func (k kexSource) startMODP(id uint16) (keyExchange, error) {
	b := make([]byte, exponentLen)
	defer wipe(b)
	if _, err := io.ReadFull(k.rand, b); err != nil {
		return nil, err
	}
	b[0] |= 0x80 // never a small exponent
	x := new(big.Int).SetBytes(b)
	return modp{id, x, new(big.Int).Exp(big.NewInt(2), x, modpGroups[id])}, nil
}

func (m modp) method() uint16 { return m.id }

// public is padded to the length of the prime, RFC 7296 section 3.4.
func (m modp) public() []byte { return m.pad(m.y) }

func (m modp) pad(n *big.Int) []byte {
	return n.FillBytes(make([]byte, (modpGroups[m.id].BitLen()+7)/8))
}

func (m modp) shared(peer []byte) ([]byte, error) {
	p := modpGroups[m.id]
	if want := (p.BitLen() + 7) / 8; len(peer) != want {
		return nil, fmt.Errorf("public value of the peer has %d bytes, not %d", len(peer), want)
	}
	y := new(big.Int).SetBytes(peer)
	top := new(big.Int).Sub(p, big.NewInt(1))
	if y.Cmp(big.NewInt(1)) <= 0 || y.Cmp(top) >= 0 { // RFC 6989 section 2.1
		return nil, errors.New("public value of the peer is out of range")
	}
	return m.pad(y.Exp(y, m.x, p)), nil
}
