package sshd

import (
	"context"
	"io"
	"slices"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Keys as x/term takes them.
const (
	keyEnd       = "\x05"
	keyClearLine = "\x15" // to the left of the cursor
	keyEnter     = "\r"
	ctrlC        = 0x03
	escape       = 0x1b
)

// keyboard stands between a client's terminal and x/term. It reads ahead, so
// that Ctrl-C reaches a command that runs; at the prompt it makes Ctrl-C clear
// the line, where x/term would end the session. Of what terminals send it hands
// on what x/term knows: on an unknown key that goes on for longer than its
// buffer x/term never returns, and what is pasted must not act as keys.
type keyboard struct {
	typed   chan []byte // keys, whole ones
	sizes   <-chan size
	resized func(size)

	rest []byte // of what was taken out of typed

	mu        sync.Mutex
	interrupt func() // ends the command that runs; nil: there is none
}

func newKeyboard(sizes <-chan size) *keyboard {
	return &keyboard{typed: make(chan []byte, 64), sizes: sizes, resized: func(size) {}}
}

// interrupts has Ctrl-C call end, or clear the line if end is nil.
func (k *keyboard) interrupts(end func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.interrupt = end
}

// Read returns keys. Changes of the window's size are told here, because nobody
// writes to the terminal while its line editor waits in Read.
func (k *keyboard) Read(p []byte) (int, error) {
	for len(k.rest) == 0 {
		select {
		case z := <-k.sizes:
			k.resized(z)
		case b, ok := <-k.typed:
			if !ok {
				return 0, io.EOF
			}
			k.rest = b
		}
	}
	n := copy(p, k.rest)
	k.rest = k.rest[n:]
	return n, nil
}

// resize tells of a change of the window's size, if there was one.
func (k *keyboard) resize() {
	select {
	case z := <-k.sizes:
		k.resized(z)
	default:
	}
}

// pump reads what the client types until it ends or ctx does. heard is called
// when something came.
func (k *keyboard) pump(ctx context.Context, r io.Reader, heard func()) {
	defer close(k.typed)
	var d decoder
	b := make([]byte, 4096)
	for {
		n, err := r.Read(b)
		heard()
		if n > 0 && !k.press(ctx, d.decode(b[:n])) {
			return
		}
		if err != nil {
			return
		}
	}
}

// press hands keys on; it reports false when nobody takes them any more.
func (k *keyboard) press(ctx context.Context, keys []byte) bool {
	if i := slices.Index(keys, ctrlC); i >= 0 {
		// What was typed before goes the way of the line.
		k.flush()
		keys = k.cancel(keys[i+1:])
	}
	if len(keys) == 0 {
		return true
	}
	select {
	case k.typed <- keys:
		return true
	case <-ctx.Done():
		return false
	}
}

// cancel acts on Ctrl-C, and returns the keys to hand on.
func (k *keyboard) cancel(after []byte) []byte {
	for i := slices.Index(after, ctrlC); i >= 0; i = slices.Index(after, ctrlC) {
		after = after[i+1:]
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.interrupt != nil {
		k.interrupt()
		return after
	}
	return append([]byte(keyEnd+keyClearLine+keyEnter), after...)
}

func (k *keyboard) flush() {
	for {
		select {
		case <-k.typed:
		default:
			return
		}
	}
}

// decoder turns what a terminal sends into keys that x/term knows.
type decoder struct {
	sequence []byte // an escape sequence, as far as it has come
	char     []byte // a rune, likewise
	pasting  bool
}

// maxSequence is longer than any key of a terminal.
const maxSequence = 16

// sequences maps what terminals send for keys, behind the escape, to what
// x/term knows.
var sequences = map[string]string{
	"[A": "\x1b[A", "[B": "\x1b[B", "[C": "\x1b[C", "[D": "\x1b[D",
	"OA": "\x1b[A", "OB": "\x1b[B", "OC": "\x1b[C", "OD": "\x1b[D",
	"[H": "\x1b[H", "[F": "\x1b[F", "OH": "\x1b[H", "OF": "\x1b[F",
	"[1~": "\x1b[H", "[7~": "\x1b[H", "[4~": "\x1b[F", "[8~": "\x1b[F", "[3~": "\x1b[3~",
	"[1;3C": "\x1b[1;3C", "[1;5C": "\x1b[1;3C", "f": "\x1b[1;3C",
	"[1;3D": "\x1b[1;3D", "[1;5D": "\x1b[1;3D", "b": "\x1b[1;3D",
}

func (d *decoder) decode(in []byte) (keys []byte) {
	for _, c := range in {
		keys = append(keys, d.next(c)...)
	}
	return keys
}

func (d *decoder) next(c byte) []byte {
	switch {
	case c == escape:
		d.sequence, d.char = append(d.sequence[:0], c), nil
		return nil
	case c < ' ' || c == 0x7f:
		d.sequence, d.char = d.sequence[:0], nil
		return d.control(c)
	case len(d.sequence) > 0:
		return d.inSequence(c)
	}
	if utf8.RuneStart(c) {
		d.char = nil
	}
	d.char = append(d.char, c)
	if !utf8.FullRune(d.char) {
		return nil
	}
	char := d.char
	d.char = nil
	if r, n := utf8.DecodeRune(char); !unicode.IsPrint(r) || r == utf8.RuneError || n < len(char) {
		return nil
	}
	return char
}

// control returns what a control character does; in a paste only the ends of
// lines do anything, and tabs are blanks.
func (d *decoder) control(c byte) []byte {
	switch {
	case !d.pasting || c == '\r' || c == '\n':
		return []byte{c}
	case c == '\t':
		return []byte{' '}
	}
	return nil
}

// inSequence takes the next byte of an escape sequence (ECMA-48 section 5.4).
func (d *decoder) inSequence(c byte) []byte {
	d.sequence = append(d.sequence, c)
	introducer := len(d.sequence) == 2 && (c == '[' || c == 'O')
	parameter := len(d.sequence) > 2 && d.sequence[1] == '[' && c < '@'
	if introducer || parameter && len(d.sequence) < maxSequence {
		return nil
	}
	text := string(d.sequence[1:])
	d.sequence = d.sequence[:0]
	switch {
	case text == "[200~":
		d.pasting = true
	case text == "[201~":
		d.pasting = false
	case !d.pasting:
		return []byte(sequences[text])
	}
	return nil
}
