package esp

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"strings"
	"testing"
)

// hmacVectors are those of RFC 4231 (sections 4.2 to 4.8), RFC 2202 (section
// 3), and RFC 4868 (section 2.7.2), whole or cut as the algorithm cuts them.
// IPsec fixes the length of keys: shorter ones are zero-padded here and longer
// ones hashed, which is what HMAC does with them first (RFC 2104 section 2).
var hmacVectors = []struct {
	name, key, data              string
	sha1, sha256, sha384, sha512 string // those that the RFC has
}{
	{name: "4231/1", key: strings.Repeat("\x0b", 20), data: "Hi There",
		sha1:   "b617318655057264e28bc0b6fb378c8ef146be00",
		sha256: "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
		sha384: "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6",
		sha512: "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"},
	{name: "4231/2", key: "Jefe", data: "what do ya want for nothing?",
		sha1:   "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
		sha256: "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
		sha384: "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
		sha512: "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"},
	{name: "4231/3", key: strings.Repeat("\xaa", 20), data: strings.Repeat("\xdd", 50),
		sha1:   "125d7342b9ac11cd91a39af48aa17b4f63f175d3",
		sha256: "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
		sha384: "88062608d3e6ad8a0aa2ace014c8a86f0aa635d947ac9febe83ef4e55966144b2a5ab39dc13814b94e3ab6e101a34f27",
		sha512: "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39bf3e848279a722c806b485a47e67c807b946a337bee8942674278859e13292fb"},
	{name: "4231/4", key: count(1, 25), data: strings.Repeat("\xcd", 50),
		sha256: "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
		sha384: "3e8a69b7783c25851933ab6290af6ca77a9981480850009cc5577c6e1f573b4e6801dd23c4a7d679ccf8a386c674cffb",
		sha512: "b0ba465637458c6990e5a8c5f61d4af7e576d97ff94b872de76f8050361ee3dba91ca5c11aa25eb4d679275cc5788063a5f19741120c4f2de2adebeb10a298dd"},
	{name: "4231/5", key: strings.Repeat("\x0c", 20), data: "Test With Truncation",
		sha1:   "4c1a03424b55e07fe7f27be1d58bb9324a9a5a04",
		sha256: "a3b6167473100ee06e0c796c2955552b",
		sha384: "3abf34c3503b2a23a46efc619baef897",
		sha512: "415fad6271580a531d4179bc891d87a6"},
	{name: "4231/6", key: strings.Repeat("\xaa", 131), data: "Test Using Larger Than Block-Size Key - Hash Key First",
		sha256: "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
		sha384: "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952",
		sha512: "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f3526b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598"},
	{name: "4231/7", key: strings.Repeat("\xaa", 131), data: "This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed before being used by the HMAC algorithm.",
		sha256: "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
		sha384: "6617178e941f020d351e2f254e8fd32c602420feb0b8fb9adccebb82461e99c5a678cc31e799176d3860e6110c46523e",
		sha512: "e37b6a775dc87dbaa4dfa9f96e5e3ffddebd71f8867289865df5a32d20cdc944b6022cac3c4982b10d5eeb55c3e4de15134676fb6de0446065c97440fa8c6a58"},
	{name: "2202/6", key: strings.Repeat("\xaa", 80), data: "Test Using Larger Than Block-Size Key - Hash Key First",
		sha1: "aa4ae5e15272d00e95705637ce8a3b55ed402112"},
	{name: "2202/7", key: strings.Repeat("\xaa", 80), data: "Test Using Larger Than Block-Size Key and Larger Than One Block-Size Data",
		sha1: "e8e99d0f45237d786d6bbaa7965c7808bbff1a91"},
	{name: "4868/256-1", key: strings.Repeat("\x0b", 32), data: "Hi There", sha256: "198a607eb44bfbc69903a0f1cf2bbdc5"},
	{name: "4868/256-2", key: strings.Repeat("Jefe", 8), data: "what do ya want for nothing?", sha256: "167f928588c5cc2eef8e3093caa0e87c"},
	{name: "4868/256-3", key: strings.Repeat("\xaa", 32), data: strings.Repeat("\xdd", 50), sha256: "cdcb1220d1ecccea91e53aba3092f962"},
	{name: "4868/256-4", key: count(1, 32), data: strings.Repeat("\xcd", 50), sha256: "372efcf9b40b35c2115b1346903d2ef4"},
	{name: "4868/384-1", key: strings.Repeat("\x0b", 48), data: "Hi There", sha384: "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973"},
	{name: "4868/384-2", key: strings.Repeat("Jefe", 12), data: "what do ya want for nothing?", sha384: "2c7353974f1842fd66d53c452ca42122b28c0b594cfb184d"},
	{name: "4868/384-3", key: strings.Repeat("\xaa", 48), data: strings.Repeat("\xdd", 50), sha384: "809f439be00274321d4a538652164b53554a508184a0c316"},
	{name: "4868/384-4", key: count(1, 32) + count(10, 16), data: strings.Repeat("\xcd", 50), sha384: "5b540085c6e6358096532b2493609ed1cb298f774f87bb5c"},
	{name: "4868/512-1", key: strings.Repeat("\x0b", 64), data: "Hi There", sha512: "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8"},
	{name: "4868/512-2", key: strings.Repeat("Jefe", 16), data: "what do ya want for nothing?", sha512: "cb370917ae8a7ce28cfd1d8f4705d6141c173b2a9362c15df235dfb251b15454"},
	{name: "4868/512-3", key: strings.Repeat("\xaa", 64), data: strings.Repeat("\xdd", 50), sha512: "2ee7acd783624ca9398710f3ee05ae41b9f9b0510c87e49e586cc9bf961733d8"},
	{name: "4868/512-4", key: count(1, 64), data: strings.Repeat("\xcd", 50), sha512: "5e6688e5a3daec826ca32eaea224eff5e700628947470e13ad01302561bab108"},
}

// count is n bytes that count up from first.
func count(first byte, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return string(b)
}

func TestHMACVectors(t *testing.T) {
	tried := 0
	for _, v := range hmacVectors {
		for name, want := range map[string]string{"hmac-sha1-96": v.sha1, "hmac-sha2-256-128": v.sha256,
			"hmac-sha2-384-192": v.sha384, "hmac-sha2-512-256": v.sha512} {
			if want == "" {
				continue
			}
			tried++
			s := suite(t, AH, "", name)
			key := make([]byte, s.Integrity.Key)
			if len(v.key) <= len(key) {
				copy(key, v.key)
			} else {
				copy(key, hashKey(name, v.key))
			}
			p := newPair(t, Config{Suite: s, IntegrityKey: NewKey(key)})
			c := p.out.crypt
			w := c.get()
			half := len(v.data) / 2
			for range 3 { // the state is taken back to its start each time
				got := c.sum(w, []byte(v.data[:half]), []byte(v.data[half:]), 0)
				expected := unhex(t, want)
				if n := min(len(got), len(expected)); len(got) != s.ICV() || !bytes.Equal(got[:n], expected[:n]) {
					t.Errorf("%s %s: %x, want %s", v.name, name, got, want)
				}
			}
		}
	}
	if tried != 7*3+6+4*3 {
		t.Errorf("%d vectors", tried)
	}
}

func hashKey(name, key string) []byte {
	switch name {
	case "hmac-sha1-96":
		sum := sha1.Sum([]byte(key))
		return sum[:]
	case "hmac-sha2-256-128":
		sum := sha256.Sum256([]byte(key))
		return sum[:]
	case "hmac-sha2-384-192":
		sum := sha512.Sum384([]byte(key))
		return sum[:]
	}
	sum := sha512.Sum512([]byte(key))
	return sum[:]
}
