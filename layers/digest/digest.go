// Package digest names stored bytes: a Digest is the SHA-256 of a blob,
// printed as 64 lower-case hexadecimal digits.
//
// The package is pure: it opens nothing and keeps no state. A Digest is a
// comparable value and safe for concurrent use; Writer and Reader are not.
//
//	d, err := digest.Parse("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
//	r := digest.NewReader(file, d)   // reading to the end proves the content
package digest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
)

// Size is the length of a Digest in bytes.
const Size = sha256.Size

// ErrInvalid says that a text is not a digest.
var ErrInvalid = errors.New("digest should be 64 lower-case hexadecimal digits")

// ErrMismatch says that bytes do not have the digest that was announced. What
// was read so far must not be used.
var ErrMismatch = errors.New("content does not match its digest")

// Digest is the SHA-256 of a blob. The zero value is no digest: see IsZero.
type Digest [Size]byte

// Of returns the digest of b.
func Of(b []byte) Digest { return sha256.Sum256(b) }

// Parse reads the 64 lower-case hexadecimal digits that String prints. Any
// other text, upper case included, is ErrInvalid: one blob has one name.
func Parse(s string) (Digest, error) {
	var d Digest
	if len(s) != 2*Size {
		return d, fmt.Errorf("%q: %w", shorten(s), ErrInvalid)
	}
	for i := range d {
		high, low := digits[s[2*i]], digits[s[2*i+1]]
		if high == 0 || low == 0 {
			return Digest{}, fmt.Errorf("%q: %w", s, ErrInvalid)
		}
		d[i] = (high-1)<<4 | (low - 1)
	}
	return d, nil
}

// digits has one more than the value of each digit, and 0 for what is none.
var digits = func() (of [256]byte) {
	for i, c := range "0123456789abcdef" {
		of[c] = byte(i + 1)
	}
	return of
}()

// shorten keeps an error about a very long text readable.
func shorten(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

// String returns the 64 lower-case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short returns the first 12 digits, for names that a person reads.
func (d Digest) Short() string { return hex.EncodeToString(d[:6]) }

// IsZero reports whether d is the zero value, which names nothing.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText prints the digest, or an empty text for the zero value.
func (d Digest) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return []byte{}, nil
	}
	return hex.AppendEncode(nil, d[:]), nil
}

// UnmarshalText reads what MarshalText prints; an empty text is the zero value.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*d = Digest{}
		return nil
	}
	v, err := Parse(string(b))
	if err != nil {
		return err
	}
	*d = v
	return nil
}

// Writer hashes what is written to it.
type Writer struct {
	h hash.Hash
	n int64
}

// NewWriter returns a Writer that has seen nothing yet.
func NewWriter() *Writer { return &Writer{h: sha256.New()} }

// Write adds p. It never fails.
func (w *Writer) Write(p []byte) (int, error) {
	w.n += int64(len(p))
	return w.h.Write(p)
}

// Len returns how many bytes were written.
func (w *Writer) Len() int64 { return w.n }

// Digest returns the digest of the bytes written so far; writing may go on.
func (w *Writer) Digest() Digest {
	var d Digest
	w.h.Sum(d[:0])
	return d
}

// Reset makes w as new.
func (w *Writer) Reset() {
	w.h.Reset()
	w.n = 0
}

// Reader passes bytes on and compares their digest at the end.
type Reader struct {
	r    io.Reader
	w    *Writer
	want Digest
	err  error
}

// NewReader returns a Reader over r. Where r ends, Read returns io.EOF if the
// bytes had the digest want, and otherwise an error that wraps ErrMismatch.
func NewReader(r io.Reader, want Digest) *Reader {
	return &Reader{r: r, w: NewWriter(), want: want}
}

// Read reads from the underlying reader.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.r.Read(p)
	r.w.Write(p[:n])
	if err == io.EOF {
		if got := r.w.Digest(); got != r.want {
			err = fmt.Errorf("have %s, want %s: %w", got, r.want, ErrMismatch)
		}
	}
	r.err = err
	return n, err
}
