package digest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

const emptyHex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestOfIsSHA256(t *testing.T) {
	if got := Of(nil).String(); got != emptyHex {
		t.Errorf("Of(nil) = %s, want %s", got, emptyHex)
	}
	if got, want := Of(nil).Short(), emptyHex[:12]; got != want {
		t.Errorf("Short() = %s, want %s", got, want)
	}
}

func TestParseTakesOnlyTheOneSpelling(t *testing.T) {
	d, err := Parse(emptyHex)
	if err != nil || d != Of(nil) {
		t.Fatalf("Parse(%q) = %v, %v", emptyHex, d, err)
	}
	for name, s := range map[string]string{
		"empty":      "",
		"short":      emptyHex[1:],
		"long":       emptyHex + "0",
		"upper case": strings.ToUpper(emptyHex),
		"not hex":    "g" + emptyHex[1:],
		"space":      " " + emptyHex[1:],
		"huge":       strings.Repeat("a", 1<<20),
	} {
		if _, err := Parse(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: Parse = %v, want ErrInvalid", name, err)
		} else if len(err.Error()) > 300 {
			t.Errorf("%s: the error repeats %d bytes of input", name, len(err.Error()))
		}
	}
}

func TestJSONRoundTrip(t *testing.T) {
	type doc struct {
		A Digest
		B Digest `json:",omitzero"`
	}
	b, err := json.Marshal(doc{A: Of(nil)})
	if want := `{"A":"` + emptyHex + `"}`; err != nil || string(b) != want {
		t.Fatalf("Marshal = %s, %v, want %s", b, err, want)
	}
	var got doc
	if err := json.Unmarshal(b, &got); err != nil || got.A != Of(nil) || !got.B.IsZero() {
		t.Errorf("Unmarshal = %+v, %v", got, err)
	}
	if err := json.Unmarshal([]byte(`{"A":"zz"}`), &got); !errors.Is(err, ErrInvalid) {
		t.Errorf("Unmarshal of a bad digest = %v, want ErrInvalid", err)
	}
}

func TestReaderProvesContentAtTheEnd(t *testing.T) {
	content := bytes.Repeat([]byte("layer"), 1000)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"plain": func(r io.Reader) io.Reader { return r }, "one byte": iotest.OneByteReader, "data with EOF": iotest.DataErrReader,
	} {
		r := NewReader(wrap(bytes.NewReader(content)), Of(content))
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: ReadAll = %d bytes, %v", name, len(got), err)
		}
		bad := NewReader(wrap(bytes.NewReader(content[1:])), Of(content))
		for range 2 {
			if _, err := io.ReadAll(bad); !errors.Is(err, ErrMismatch) {
				t.Errorf("%s: ReadAll of other bytes = %v, want ErrMismatch", name, err)
			}
		}
	}
}

func TestWriterCountsAndGoesOn(t *testing.T) {
	w := NewWriter()
	io.WriteString(w, "ab")
	mid := w.Digest()
	io.WriteString(w, "c")
	if mid != Of([]byte("ab")) || w.Digest() != Of([]byte("abc")) || w.Len() != 3 {
		t.Errorf("digests %s, %s after %d bytes", mid, w.Digest(), w.Len())
	}
	w.Reset()
	if w.Digest() != Of(nil) || w.Len() != 0 {
		t.Error("Reset left something behind")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(emptyHex)
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := Parse(s); err == nil && d.String() != s {
			t.Errorf("Parse(%q).String() = %q", s, d.String())
		}
	})
}
