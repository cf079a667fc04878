package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"deploytools/layers/digest"
	"deploytools/verify/spec"
)

// Limits of a configuration's document.
const (
	MaxConfigurationBytes = 1 << 20
	MaxLayers             = 1000
	MaxVerifyBytes        = 64 << 10 // of the checks, in their text form
)

// ErrConfiguration says that a document is no valid configuration.
var ErrConfiguration = errors.New("not a valid configuration")

// Configuration is one revision of a configuration, as configs/NAME.json shows
// it to agents. The first four fields are the original format; Revision and
// Digest were added. A registry of the original kind sends neither: Revision
// is 0 then, and DecodeConfiguration computes Digest.
type Configuration struct {
	Name   string
	Mtime  time.Time
	Hash   digest.Digest // ContentHash of the layers
	Layers []Layer

	Revision uint64        `json:",omitzero"` // counts from 1 for each name
	Digest   digest.Digest `json:",omitzero"` // identifies what is deployed: see Seal

	Verify *spec.Spec `json:",omitempty"` // checks that travel with it, which may ask for more than a host takes from here; nil: none

	Hold *Hold `json:",omitempty"` // set when the document is read, while deliveries are stopped
}

// Layer is a component's version inside a configuration.
type Layer struct {
	Name    string // of the component
	Version string
	File    string // "files/" + Hash, below the root of the agents' SFTP tree
	Hash    digest.Digest
	Ctime   time.Time // when the version was added

	Size     int64 `json:",omitzero"` // bytes of the archive; 0 means not told
	Unpacked int64 `json:",omitzero"` // bytes of its files; 0 means not told
	Entries  int64 `json:",omitzero"` // files, directories and links; 0 means not told
}

// FileName returns where the agents' SFTP tree has the blob d.
func FileName(d digest.Digest) string { return "files/" + d.String() }

// ContentHash is the original tool set's identity of a configuration: SHA-256
// over each layer's digest in hex and a newline. It does not cover the names.
func ContentHash(layers []Layer) digest.Digest {
	h := digest.NewWriter()
	for _, l := range layers {
		fmt.Fprintf(h, "%s\n", l.Hash)
	}
	return h.Digest()
}

// ConfigurationDigest is the identity of what a configuration deploys: SHA-256
// over a tag that keeps it apart from every other use of the hash and, for
// each layer in order, its component, version and digest. Names hold neither
// spaces nor newlines, so no two lists have one encoding.
//
// Where checks travel with it, an empty line and a line for each thing that they
// say follow, quoted. A reader computes these from what it has understood: one
// that does not know a key of a check comes to another digest, and refuses the
// document rather than leave out what must be looked at.
func ConfigurationDigest(layers []Layer, verify *spec.Spec) digest.Digest {
	h := sha256.New()
	fmt.Fprintf(h, "deploytools configuration 1\n")
	for _, l := range layers {
		fmt.Fprintf(h, "%s %s %s\n", l.Name, l.Version, l.Hash)
	}
	if verify != nil {
		fmt.Fprintf(h, "\n")
		for _, line := range verify.Lines() {
			fmt.Fprintf(h, "%q\n", line)
		}
	}
	return digest.Digest(h.Sum(nil))
}

// Seal sets the fields that follow from the layers and the checks: Hash, Digest
// and each layer's File.
func (c *Configuration) Seal() {
	for i := range c.Layers {
		c.Layers[i].File = FileName(c.Layers[i].Hash)
	}
	c.Hash = ContentHash(c.Layers)
	c.Digest = ConfigurationDigest(c.Layers, c.Verify)
}

// Check says what is wrong with c, wrapping ErrConfiguration.
func (c *Configuration) Check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("configuration %q: "+format+": %w", append(append([]any{c.Name}, args...), ErrConfiguration)...)
	}
	if err := CheckName(c.Name); err != nil {
		return fmt.Errorf("%w: %w", err, ErrConfiguration)
	}
	if len(c.Layers) == 0 || len(c.Layers) > MaxLayers {
		return bad("%d layers; it should have 1 to %d", len(c.Layers), MaxLayers)
	}
	seen := make(map[string]bool, len(c.Layers))
	for i, l := range c.Layers {
		switch {
		case CheckName(l.Name) != nil:
			return bad("layer %d: component %q: %v", i, l.Name, ErrName)
		case CheckVersion(l.Version) != nil:
			return bad("layer %d: version %q: %v", i, l.Version, ErrVersionName)
		case seen[l.Name]:
			return bad("duplicate component %q", l.Name)
		case l.Hash.IsZero():
			return bad("layer %s: no digest", l.Name)
		case l.File != FileName(l.Hash):
			return bad("layer %s: file %q is not %q", l.Name, l.File, FileName(l.Hash))
		case l.Size < 0 || l.Unpacked < 0 || l.Entries < 0:
			return bad("layer %s: a negative size", l.Name)
		}
		seen[l.Name] = true
	}
	if want := ContentHash(c.Layers); c.Hash != want {
		return bad("its hash %s does not follow from its layers (%s)", c.Hash, want)
	}
	if err := checkVerify(c.Verify); err != nil {
		return bad("%w", err)
	}
	if want := ConfigurationDigest(c.Layers, c.Verify); c.Digest != want {
		if c.Verify != nil {
			return bad("its digest %s does not follow from its layers and checks (%s); a newer version may know more of the checks", c.Digest, want)
		}
		return bad("its digest %s does not follow from its layers (%s)", c.Digest, want)
	}
	return nil
}

// checkVerify says what is wrong with checks that travel. Whether a host carries
// them out is for the host to say.
func checkVerify(v *spec.Spec) error {
	if v == nil {
		return nil
	}
	if v.IsZero() {
		return errors.New("its checks are empty")
	}
	if n := len(strings.Join(v.Lines(), "\n")); n > MaxVerifyBytes {
		return fmt.Errorf("%d bytes of checks; it should have at most %d", n, MaxVerifyBytes)
	}
	return v.Validate(spec.FromHost)
}

// Encode returns the document: JSON indented by tabs, with a final newline.
func (c *Configuration) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(c, "", "\t")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// DecodeConfiguration reads a document that Encode or a registry of the
// original kind wrote, and checks all of it: nothing that a registry says about
// a configuration is believed that can be computed.
func DecodeConfiguration(b []byte) (*Configuration, error) {
	if len(b) > MaxConfigurationBytes {
		return nil, fmt.Errorf("%d bytes, more than %d: %w", len(b), MaxConfigurationBytes, ErrConfiguration)
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil, fmt.Errorf("empty document: %w", ErrConfiguration)
	}
	c := new(Configuration)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfiguration, err)
	}
	if c.Digest.IsZero() {
		c.Digest = ConfigurationDigest(c.Layers, c.Verify)
	}
	if err := c.Check(); err != nil {
		return nil, err
	}
	return c, nil
}
