package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"deploytools/layers/digest"
	"deploytools/verify/spec"
)

// sample returns the configuration of the golden files.
func sample() *Configuration {
	c := &Configuration{Name: "project1", Mtime: time.Date(2026, 11, 21, 18, 47, 41, 123456789, time.UTC), Revision: 7, Layers: []Layer{
		{Name: "code", Version: "v01", Hash: digest.Of([]byte("code v01")), Ctime: time.Date(2026, 11, 21, 18, 47, 40, 0, time.UTC), Size: 4096, Unpacked: 10240, Entries: 12},
		{Name: "config", Version: "v01", Hash: digest.Of([]byte("config v01")), Ctime: time.Date(2026, 11, 21, 18, 47, 40, 5e8, time.UTC), Size: 512, Unpacked: 100, Entries: 1},
	}}
	c.Seal()
	return c
}

func encoded(t testing.TB, c *Configuration) []byte {
	t.Helper()
	b, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestConfigurationFormat(t *testing.T) {
	b := golden(t, "configuration.json", encoded(t, sample()))
	c, err := DecodeConfiguration(b)
	if err != nil {
		t.Fatal(err)
	}
	if again := encoded(t, c); !bytes.Equal(again, b) {
		t.Errorf("decoded and encoded again: got\n%s\nwant\n%s", again, b)
	}
}

// The original tool set's document is ours without the added fields, byte for
// byte: its agents read ours, and ours read its.
func TestOriginalConfiguration(t *testing.T) {
	original := file(t, "original.json")
	c := sample()
	c.Revision, c.Digest = 0, digest.Digest{}
	for i := range c.Layers {
		c.Layers[i].Size, c.Layers[i].Unpacked, c.Layers[i].Entries = 0, 0, 0
	}
	if got := encoded(t, c); !bytes.Equal(got, original) {
		t.Errorf("without the added fields: got\n%s\nwant\n%s", got, original)
	}
	c, err := DecodeConfiguration(original)
	if err != nil {
		t.Fatal(err)
	}
	if want := sample().Digest; c.Digest != want || c.Revision != 0 {
		t.Errorf("decoded: digest %s, revision %d, want %s, 0", c.Digest, c.Revision, want)
	}
}

// Each of the hashes is computed here a second time, from its description.
func TestHashes(t *testing.T) {
	c := sample()
	of := func(s string) string {
		sum := sha256.Sum256([]byte(s))
		return hex.EncodeToString(sum[:])
	}
	code, config := of("code v01"), of("config v01")
	if want := of(code + "\n" + config + "\n"); c.Hash.String() != want {
		t.Errorf("Hash = %s, want %s", c.Hash, want)
	}
	if want := of("deploytools configuration 1\ncode v01 " + code + "\nconfig v01 " + config + "\n"); c.Digest.String() != want {
		t.Errorf("Digest = %s, want %s", c.Digest, want)
	}
	// Other names with the same content are another configuration. The
	// original hash cannot tell them apart.
	other := sample()
	other.Layers[0].Version = "v02"
	other.Seal()
	if other.Hash != c.Hash || other.Digest == c.Digest {
		t.Errorf("another version with the same content: Hash equal %t, Digest equal %t, want true, false", other.Hash == c.Hash, other.Digest == c.Digest)
	}
	other = sample()
	other.Name, other.Revision, other.Mtime = "other", 1, time.Time{}
	other.Layers[0].Size, other.Layers[0].Ctime = 1, time.Time{}
	other.Seal()
	if other.Digest != c.Digest {
		t.Error("Digest depends on more than the layers")
	}
	other.Layers[0], other.Layers[1] = other.Layers[1], other.Layers[0]
	other.Seal()
	if other.Digest == c.Digest || other.Hash == c.Hash {
		t.Error("another order has the same digest")
	}
}

func TestCheckRefuses(t *testing.T) {
	for _, test := range []struct {
		name, want string
		change     func(*Configuration)
	}{
		{"no name", "name is empty", func(c *Configuration) { c.Name = "" }},
		{"bad name", `name "../x"`, func(c *Configuration) { c.Name = "../x" }},
		{"colon in the name", `name "a:b"`, func(c *Configuration) { c.Name = "a:b" }},
		{"no layers", "0 layers; it should have 1 to 1000", func(c *Configuration) { c.Layers = nil; c.Seal() }},
		{"too many layers", "1001 layers", func(c *Configuration) {
			for i := range MaxLayers - 1 {
				l := c.Layers[0]
				l.Name = fmt.Sprintf("c%d", i)
				c.Layers = append(c.Layers, l)
			}
			c.Seal()
		}},
		{"bad component", `layer 1: component "a b"`, func(c *Configuration) { c.Layers[1].Name = "a b"; c.Seal() }},
		{"colon in a component", `layer 0: component "a:b"`, func(c *Configuration) { c.Layers[0].Name = "a:b"; c.Seal() }},
		{"bad version", `layer 0: version "a\nb"`, func(c *Configuration) { c.Layers[0].Version = "a\nb"; c.Seal() }},
		{"no version", `layer 0: version ""`, func(c *Configuration) { c.Layers[0].Version = ""; c.Seal() }},
		{"duplicate", `duplicate component "code"`, func(c *Configuration) { c.Layers[1].Name = "code"; c.Seal() }},
		{"no digest", "layer code: no digest", func(c *Configuration) { c.Layers[0].Hash = digest.Digest{}; c.Seal() }},
		{"no file", `layer config: file "" is not "files/`, func(c *Configuration) { c.Layers[1].File = "" }},
		{"file elsewhere", `layer code: file "files/../../etc/shadow"`, func(c *Configuration) { c.Layers[0].File = "files/../../etc/shadow" }},
		{"file of another layer", "layer code: file", func(c *Configuration) { c.Layers[0].File = c.Layers[1].File }},
		{"negative size", "layer config: a negative size", func(c *Configuration) { c.Layers[1].Size = -1 }},
		{"negative unpacked size", "layer code: a negative size", func(c *Configuration) { c.Layers[0].Unpacked = -1 }},
		{"negative entries", "layer code: a negative size", func(c *Configuration) { c.Layers[0].Entries = -1 }},
		{"wrong hash", "its hash", func(c *Configuration) { c.Hash[0]++ }},
		{"no hash", "its hash", func(c *Configuration) { c.Hash = digest.Digest{} }},
		{"wrong digest", "its digest", func(c *Configuration) { c.Digest[31]++ }},
	} {
		c := sample()
		test.change(c)
		err := c.Check()
		if !errors.Is(err, ErrConfiguration) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: Check = %v, want an ErrConfiguration about %q", test.name, err, test.want)
		}
		if c, err := DecodeConfiguration(encoded(t, c)); !errors.Is(err, ErrConfiguration) {
			t.Errorf("%s: DecodeConfiguration = %+v, %v", test.name, c, err)
		}
	}
	if err := sample().Check(); err != nil {
		t.Errorf("Check = %v", err)
	}
}

func TestMostLayers(t *testing.T) {
	c := sample()
	for i := range MaxLayers - len(c.Layers) {
		l := c.Layers[0]
		l.Name = fmt.Sprintf("%s%04d", strings.Repeat("c", MaxName-4), i)
		l.Version = strings.Repeat("v", MaxName)
		c.Layers = append(c.Layers, l)
	}
	c.Seal()
	if _, err := DecodeConfiguration(encoded(t, c)); err != nil {
		t.Errorf("%d layers with the longest names: %.200v", MaxLayers, err)
	}
}

func TestDecodeConfigurationRefuses(t *testing.T) {
	good := string(encoded(t, sample()))
	for name, text := range map[string]string{
		"nothing":         "",
		"white space":     " \n\t\n",
		"null":            "null",
		"no object":       "[]",
		"cut off":         good[:len(good)/2],
		"two documents":   good + good,
		"something after": good + "x",
		"wrong type":      strings.Replace(good, `"Revision": 7`, `"Revision": "7"`, 1),
		"negative number": strings.Replace(good, `"Revision": 7`, `"Revision": -7`, 1),
		"short digest":    strings.Replace(good, `"Digest": "d2`, `"Digest": "`, 1),
		"upper case":      strings.Replace(good, `"Digest": "d2`, `"Digest": "D2`, 1),
		"bad time":        strings.Replace(good, "18:47:41", "25:47:41", 1),
		"too long":        good + strings.Repeat(" ", MaxConfigurationBytes),
	} {
		if c, err := DecodeConfiguration([]byte(text)); !errors.Is(err, ErrConfiguration) || text == good {
			t.Errorf("%s: DecodeConfiguration = %+v, %v, want ErrConfiguration", name, c, err)
		}
	}
}

func TestDecodeConfigurationIgnoresWhatItDoesNotKnow(t *testing.T) {
	text := strings.Replace(string(encoded(t, sample())), `"Name": "code",`, `"Name": "code", "Color": {"red": [1, 2]},`, 1)
	c, err := DecodeConfiguration([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(encoded(t, c)), string(encoded(t, sample())); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func FuzzDecodeConfiguration(f *testing.F) {
	f.Add(file(f, "original.json"))
	f.Add(encoded(f, sample()))
	f.Add([]byte(`{"Name":"a","Layers":[{}]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeConfiguration(b)
		if err != nil {
			if !errors.Is(err, ErrConfiguration) {
				t.Errorf("DecodeConfiguration(%q) = %v, not an ErrConfiguration", b, err)
			}
			return
		}
		text := encoded(t, c)
		again, err := DecodeConfiguration(text)
		if err != nil || !bytes.Equal(encoded(t, again), text) {
			t.Errorf("DecodeConfiguration(%q) = %+v, again: %+v, %v", b, c, again, err)
		}
		// Documents reach programs of other languages, too.
		if !json.Valid(text) {
			t.Errorf("Encode(%+v) = %q", c, text)
		}
	})
}

// The checks are part of the identity, and a document of checks that a reader
// does not wholly understand is refused, not read without them.
func TestChecksTravel(t *testing.T) {
	c := sample()
	plain := c.Digest
	c.Verify = &spec.Spec{Checks: []spec.Check{
		{Type: spec.TLS, Name: "site", Addr: "localhost:443", SNI: "www.example.org", Cert: "etc/site.pem"},
		{Type: spec.HTTP, URL: "http://localhost/version", JSON: "/id", Equals: "{newid}", Timeout: 5 * time.Second},
	}, Successes: 2, Soak: time.Minute}
	c.Seal()
	if c.Digest == plain || c.Hash != ContentHash(c.Layers) {
		t.Errorf("digest %s, hash %s: want another digest and the same hash", c.Digest, c.Hash)
	}
	b := golden(t, "configuration-verify.json", encoded(t, c))
	got, err := DecodeConfiguration(b)
	if err != nil {
		t.Fatal(err)
	}
	if again := encoded(t, got); !bytes.Equal(again, b) {
		t.Errorf("decoded and encoded again: got\n%s\nwant\n%s", again, b)
	}
	for name, change := range map[string][2]string{
		"another check":                    {`"localhost:443"`, `"localhost:444"`},
		"another number":                   {`"Successes": 2`, `"Successes": 3`},
		"an unknown type":                  {`"Type": "tls"`, `"Type": "quic"`},
		"a key that the reader leaves out": {`"SNI": "www.example.org",`, ``},
		"an invalid check":                 {`"localhost:443"`, `"localhost"`},
	} {
		text := strings.Replace(string(b), change[0], change[1], 1)
		if text == string(b) {
			t.Fatalf("%s: nothing to replace", name)
		}
		if _, err := DecodeConfiguration([]byte(text)); !errors.Is(err, ErrConfiguration) {
			t.Errorf("%s: DecodeConfiguration = %v, want ErrConfiguration", name, err)
		}
	}
	c.Verify = new(spec.Spec)
	c.Seal()
	if err := c.Check(); !errors.Is(err, ErrConfiguration) {
		t.Errorf("empty checks: Check = %v, want ErrConfiguration", err)
	}
}
