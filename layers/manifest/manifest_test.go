package manifest

import (
	"bytes"
	"errors"
	"iter"
	"strings"
	"testing"

	"deploytools/layers/digest"

	"github.com/google/go-cmp/cmp"
)

var sample = Manifest{
	{Path: "etc", Type: Dir, Mode: 0o1777},
	{Path: "etc/a b%", Type: File, Mode: 0o644, UID: 1000, GID: 33, Size: 5, Digest: digest.Of([]byte("hello"))},
	{Path: "etc/link", Type: Symlink, Mode: 0o777, Target: "/nowhere/\x1b[2J"},
	{Path: "etc/\xff\n", Type: File, Digest: digest.Of(nil)},
}

const sampleText = `deploy-manifest 1
d 1777 0 0 0 - etc
f 0644 1000 33 5 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824 etc/a%20b%25
l 0777 0 0 0 /nowhere/%1B[2J etc/link
f 0000 0 0 0 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 etc/%FF%0A
`

func encode(t *testing.T, m Manifest) string {
	t.Helper()
	var b bytes.Buffer
	if err := m.Encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTextFormIsFixed(t *testing.T) {
	if diff := cmp.Diff(sampleText, encode(t, sample)); diff != "" {
		t.Errorf("Encode: -want +got\n%s", diff)
	}
	got, err := Decode(strings.NewReader(sampleText))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample, got); diff != "" {
		t.Errorf("Decode: -want +got\n%s", diff)
	}
	if sample.Digest() != digest.Of([]byte(sampleText)) {
		t.Error("Digest is not the digest of the text form")
	}
}

func TestDecodeRefusesWhatEncodeCannotWrite(t *testing.T) {
	const d = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for name, text := range map[string]string{
		"empty":               "",
		"newer format":        "deploy-manifest 2\n",
		"few fields":          Header + "\nd 0755 0 0 0 etc\n",
		"unknown type":        Header + "\nx 0755 0 0 0 - etc\n",
		"mode too large":      Header + "\nd 10000 0 0 0 - etc\n",
		"negative size":       Header + "\nf 0644 0 0 -1 " + d + " a\n",
		"sized directory":     Header + "\nd 0755 0 0 7 - etc\n",
		"directory's content": Header + "\nd 0755 0 0 0 " + d + " etc\n",
		"bad digest":          Header + "\nf 0644 0 0 0 zz a\n",
		"no path":             Header + "\nd 0755 0 0 0 - %\n",
		"cut escape":          Header + "\nd 0755 0 0 0 - a%4\n",
		"needless escape":     Header + "\nd 0755 0 0 0 - %61\n",
		"lower-case escape":   Header + "\nd 0755 0 0 0 - %ff\n",
		"twice":               Header + "\nd 0755 0 0 0 - a\nd 0755 0 0 0 - a\n",
		"unsorted":            Header + "\nd 0755 0 0 0 - b\nd 0755 0 0 0 - a\n",
		"endless line":        Header + "\nd 0755 0 0 0 - " + strings.Repeat("a", maxLine) + "\n",
	} {
		if m, err := Decode(strings.NewReader(text)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: Decode = %v, %v, want ErrInvalid", name, m, err)
		}
	}
}

func diff(t *testing.T, old, new iter.Seq2[Entry, error]) []Change {
	t.Helper()
	var out []Change
	for c, err := range Diff(old, new) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

func TestDiffNamesEachChangedPathOnce(t *testing.T) {
	old := Manifest{{Path: "a", Type: Dir}, {Path: "b", Type: Dir}, {Path: "c", Type: Dir, Mode: 0o700}, {Path: "e", Type: Dir, GID: 1}}
	now := Manifest{{Path: "0", Type: Dir}, {Path: "b", Type: Dir}, {Path: "c", Type: Dir, Mode: 0o755}, {Path: "d", Type: Dir}, {Path: "e", Type: Dir, GID: 2}}
	want := []Change{{"0", nil, &now[0]}, {"a", &old[0], nil}, {"c", &old[2], &now[2]}, {"d", nil, &now[3]}, {"e", &old[3], &now[4]}}
	if d := cmp.Diff(want, diff(t, old.All(), now.All())); d != "" {
		t.Errorf("Diff: -want +got\n%s", d)
	}
	if got := diff(t, now.All(), now.All()); got != nil {
		t.Errorf("Diff of equal trees = %v", got)
	}
	if got := diff(t, nothing, now.All()); len(got) != 5 || got[0].Old != nil {
		t.Errorf("Diff from nothing = %v", got)
	}
	if got := diff(t, now.All(), nothing); len(got) != 5 || got[0].New != nil {
		t.Errorf("Diff to nothing = %v", got)
	}
	for range Diff(now.All(), nothing) {
		break // ends both streams
	}
}

var nothing = Manifest(nil).All()

// What cannot be read to its end is not taken for shorter than it is.
func TestDiffEndsWithTheFirstError(t *testing.T) {
	torn := func() iter.Seq2[Entry, error] { return Read(strings.NewReader(sampleText + "x")) }
	for name, changes := range map[string]iter.Seq2[Change, error]{
		"old": Diff(torn(), sample.All()), "new": Diff(sample.All(), torn()), "both": Diff(torn(), torn()), "alone": Diff(nothing, torn()),
	} {
		n, last := 0, error(nil)
		for c, err := range changes {
			if last != nil {
				t.Errorf("%s: the loop goes on with %v", name, c)
			}
			if last = err; err == nil {
				n++
			}
		}
		if !errors.Is(last, ErrInvalid) || n > len(sample) {
			t.Errorf("%s: %d changes, then %v, want ErrInvalid", name, n, last)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sampleText)
	f.Fuzz(func(t *testing.T, s string) {
		m, err := Decode(strings.NewReader(s))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := m.Encode(&b); err != nil {
			t.Fatal(err)
		}
		again, err := Decode(&b)
		if diff := cmp.Diff(m, again); err != nil || diff != "" {
			t.Errorf("round trip: %v\n%s", err, diff)
		}
	})
}
