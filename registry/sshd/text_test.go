package sshd

import (
	"bytes"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"golang.org/x/crypto/ssh"
)

func TestScreenShowsNoControls(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"code   v01\n\tx\n", "code   v01\n\tx\n"},
		{"no end", "no end\n"},
		{"", ""},
		{"a\x1b[2Jb\rc\x00\x7f\x9b\n", `a\x1b[2Jb\rc\x00\x7f\x9b` + "\n"},
		{"grün 日本 \u009b \u202e\n", `grün 日本 \u009b \u202e` + "\n"},
		{"\xff\xfe", `\xff\xfe` + "\n"},
		{"cut \xe6\x97", `cut \xe6\x97` + "\n"},
	} {
		for _, piece := range []int{1, 2, 3, 100} {
			var out bytes.Buffer
			s := &screen{w: &out, newline: "\n"}
			for rest := []byte(test.in); len(rest) > 0; {
				n := min(piece, len(rest))
				s.Write(rest[:n])
				rest = rest[n:]
			}
			s.end()
			if out.String() != test.want {
				t.Errorf("screen of %q in pieces of %d = %q, want %q", test.in, piece, out.String(), test.want)
			}
		}
	}
}

func FuzzScreen(f *testing.F) {
	f.Add("a\x1b[2J\n", "\xe6\x97\xa5")
	f.Fuzz(func(t *testing.T, a, b string) {
		var out bytes.Buffer
		s := &screen{w: &out, newline: "\n"}
		s.Write([]byte(a))
		s.Write([]byte(b))
		s.end()
		for _, r := range out.String() {
			if !unicode.IsPrint(r) && r != '\n' && r != '\t' {
				t.Fatalf("screen of %q, %q has %q", a, b, r)
			}
		}
	})
}

func TestDecoder(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"text", "héllo 日本", "héllo 日本"},
		{"controls", "\x01\x04\x09\x0d\x0a\x7f", "\x01\x04\x09\x0d\x0a\x7f"},
		{"arrows", "\x1b[A\x1b[B\x1b[C\x1b[D", "\x1b[A\x1b[B\x1b[C\x1b[D"},
		{"arrows in application mode", "\x1bOA\x1bOD", "\x1b[A\x1b[D"},
		{"home and end", "\x1b[1~\x1bOH\x1b[4~\x1b[8~", "\x1b[H\x1b[H\x1b[F\x1b[F"},
		{"words", "\x1bb\x1b[1;5C", "\x1b[1;3D\x1b[1;3C"},
		{"delete", "\x1b[3~", "\x1b[3~"},
		{"unknown keys", "a\x1b[24~\x1b[1;2P\x1bOP\x1bxb", "ab"},
		{"a lone escape", "\x1b\ra", "\ra"},
		{"two escapes", "\x1b\x1b[Aa", "\x1b[Aa"},
		{"bad UTF-8", "a\xff\xc3(b\xe6\x97", "a(b"},
		{"replacement characters", "a\ufffdb", "ab"},
		{"invisible characters", "a\u202e\u009b\u200bb", "ab"},
		{"a paste", "\x1b[200~a\tb\x03\x04\x15\x1b[A\x1b]0;x\x07c\rd\x1b[201~\x09", "a b0;xc\rd\t"},
	} {
		for _, piece := range []int{1, 1000} {
			var d decoder
			var got []byte
			for rest := []byte(test.in); len(rest) > 0; {
				n := min(piece, len(rest))
				got = append(got, d.decode(rest[:n])...)
				rest = rest[n:]
			}
			if string(got) != test.want {
				t.Errorf("%s, in pieces of %d: %q, want %q", test.name, piece, got, test.want)
			}
		}
	}
}

// x/term never returns from a key that is longer than its buffer.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte("\x1b[" + strings.Repeat("1;", 300)))
	f.Fuzz(func(t *testing.T, in []byte) {
		var d decoder
		keys := d.decode(in)
		if len(d.sequence) > maxSequence || len(d.char) > 4 {
			t.Errorf("decode(%q) holds back %q, %q", in, d.sequence, d.char)
		}
		known := string(keys)
		for _, s := range sequences {
			known = strings.ReplaceAll(known, s, "")
		}
		if strings.ContainsRune(known, escape) {
			t.Errorf("decode(%q) = %q, with an unknown key", in, keys)
		}
	})
}

func TestPacketsAreCounted(t *testing.T) {
	stream := []byte("\x00\x00\x00\x01a" + "\x00\x00\x00\x03bcd" + "\x00\x00\x01\x00" + strings.Repeat("e", 256) + "\x00\x00\x00\x05f")
	for piece := 1; piece < 300; piece++ {
		var p packets
		n := 0
		for rest := stream; len(rest) > 0; {
			k := min(piece, len(rest))
			n += p.see(rest[:k])
			rest = rest[k:]
		}
		if n != 3 {
			t.Errorf("%d packets in pieces of %d, want 3", n, piece)
		}
	}
}

// The last answers may be written after the server of SFTP has ended, and then
// count for nothing: the registry would wait for them when it stops.
func TestAnswersAfterTheEndDoNotCount(t *testing.T) {
	c := &conn{}
	f := newSFTPStream(&session{c: c})
	f.count(3)
	f.count(-1)
	f.end()
	f.count(-2)
	if n := c.running.Load(); n != 0 {
		t.Errorf("%d requests run when all is over", n)
	}
}

func TestClean(t *testing.T) {
	for _, test := range []struct {
		in    string
		limit int
		want  string
	}{
		{"anna", 64, "anna"},
		{"日本語", 3, "日本語"},
		{"日本語", 2, "日本..."},
		{"a\nb\x1b\xff", 64, `a\nb\x1b\xff`},
		{"", 0, ""},
	} {
		if got := clean(test.in, test.limit); got != test.want {
			t.Errorf("clean(%q, %d) = %q, want %q", test.in, test.limit, got, test.want)
		}
	}
}

func TestHistoryKeepsTheNewest(t *testing.T) {
	h := &history{skip: func() bool { return false }}
	for i := range 150 {
		line := strings.Repeat("x", i+1)
		h.Add(line)
		h.Add(line)
		h.Add("  ")
	}
	if h.Len() != maxHistory || len(h.At(0)) != 150 || len(h.At(99)) != 51 {
		t.Errorf("%d lines, the newest of %d, the oldest of %d characters", h.Len(), len(h.At(0)), len(h.At(h.Len()-1)))
	}
}

// input is a channel that a client has sent this to.
type input struct {
	ssh.Channel
	io.Reader
}

func (i input) Read(p []byte) (int, error) { return i.Reader.Read(p) }

// What names a handle before the client can know it waits, in whatever pieces
// it comes; a way to the client that is gone ends the waiting, too.
func TestNothingFollowsAnOpeningBeforeItsAnswer(t *testing.T) {
	const first, second = "\x00\x00\x00\x02\x03o", "\x00\x00\x00\x02\x06w"
	for _, gone := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			answers, out := io.Pipe()
			c := &conn{s: &Server{o: Options{Stall: time.Minute}}}
			f := newSFTPStream(&session{c: c, ch: input{Reader: strings.NewReader(first + second)}, stdout: newOutlet(c, out)})
			opening := make([]byte, len(first))
			for i := range opening {
				if _, err := io.ReadFull(f, opening[i:i+1]); err != nil {
					t.Fatal(err)
				}
			}
			var got atomic.Int64
			rest := make(chan error)
			go func() {
				for range second {
					if _, err := io.ReadFull(f, make([]byte, 1)); err != nil {
						rest <- err
						return
					}
					got.Add(1)
				}
				rest <- nil
			}()
			synctest.Wait()
			if n := got.Load(); n != 0 {
				t.Errorf("%d bytes were given before the answer", n)
			}
			if gone {
				answers.Close()
			} else {
				go io.Copy(io.Discard, answers)
			}
			io.WriteString(f, "\x00\x00\x00\x02fh")
			if err := <-rest; err != nil || got.Load() != int64(len(second)) {
				t.Errorf("%d bytes after the answer, %v", got.Load(), err)
			}
			f.end()
			out.Close()
			if n := c.running.Load(); n != 0 {
				t.Errorf("%d requests run when all is over", n)
			}
		})
	}
}

// What came before may still be looking for a handle that it guessed.
func TestAnOpeningWaitsForWhatCameBefore(t *testing.T) {
	const write, opening = "\x00\x00\x00\x02\x06w", "\x00\x00\x00\x02\x03o"
	synctest.Test(t, func(t *testing.T) {
		c := &conn{s: &Server{o: Options{Stall: time.Minute}}}
		f := newSFTPStream(&session{c: c, ch: input{Reader: strings.NewReader(write + opening)}, stdout: newOutlet(c, io.Discard)})
		if _, err := io.ReadFull(f, make([]byte, len(write))); err != nil {
			t.Fatal(err)
		}
		got := make(chan error, 1)
		go func() {
			_, err := io.ReadFull(f, make([]byte, 4))
			if err == nil {
				_, err = io.ReadFull(f, make([]byte, 2))
			}
			got <- err
		}()
		synctest.Wait()
		if len(got) != 0 {
			t.Error("the opening was given before the answer to the write")
		}
		io.WriteString(f, "\x00\x00\x00\x02eo")
		if err := <-got; err != nil {
			t.Errorf("after the answer: %v", err)
		}
		f.end()
	})
}

// reads counts what is read from a channel.
type reads struct {
	io.Reader
	n int
}

func (r *reads) Read(p []byte) (int, error) { r.n++; return r.Reader.Read(p) }

// Each read of the channel may cost a packet to the client, which widens the
// window, and each answer one: to many small writes there are few.
func TestManySmallWritesCostFewPackets(t *testing.T) {
	const writes = 64
	request := "\x00\x00\x20\x00\x06" + strings.Repeat("w", 8191)
	const answer = "\x00\x00\x00\x02eo"
	in, out := &reads{Reader: strings.NewReader(strings.Repeat(request, writes))}, &written{}
	c := &conn{s: &Server{o: Options{Stall: time.Minute}}}
	f := newSFTPStream(&session{c: c, ch: input{Reader: in}, stdout: newOutlet(c, out)})
	for range writes {
		if _, err := io.ReadFull(f, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(f, make([]byte, 8192)); err != nil {
			t.Fatal(err)
		}
	}
	if in.n > writes/4 {
		t.Errorf("the channel was read %d times", in.n)
	}
	for range writes {
		io.WriteString(f, answer)
	}
	if n := len(out.parts); n == 0 || n > 4 {
		t.Errorf("the answers left in %d parts", n)
	}
	if got := strings.Join(out.parts, ""); got != strings.Repeat(answer, writes) {
		t.Errorf("%d bytes of answers left, want all %d", len(got), writes*len(answer))
	}
}

// written keeps what is written to it.
type written struct{ parts []string }

func (w *written) Write(p []byte) (int, error) {
	w.parts = append(w.parts, string(p))
	return len(p), nil
}

// An answer waits for no request that has not come to its end, nor for one
// whose answer may never be written, and a long one not at all.
func TestNoAnswerIsHeldBackInVain(t *testing.T) {
	const request, answer = "\x00\x00\x00\x02\x06w", "\x00\x00\x00\x02eo"
	long := "\x00\x00\x04\x00" + strings.Repeat("d", 1024)
	for _, test := range []struct {
		name, in string
		ended    bool
		answers  []string
		want     []int // bytes that have left after each
	}{
		{"the last", request + request, false, []string{answer, answer}, []int{0, 12}},
		{"half a request behind it", request + request[:5], false, []string{answer}, []int{6}},
		{"the end", request + request, true, []string{answer}, []int{6}},
		{"in two parts", request, false, []string{answer[:4], answer[4:]}, []int{0, 6}},
		{"long", request + request + request, false, []string{answer, long, answer}, []int{0, 6 + 1028, 6 + 1028 + 6}},
	} {
		out := &written{}
		c := &conn{s: &Server{o: Options{Stall: time.Minute}}}
		f := newSFTPStream(&session{c: c, ch: input{Reader: strings.NewReader(test.in)}, stdout: newOutlet(c, out)})
		io.ReadFull(f, make([]byte, len(test.in))) // and not its end, which comes behind all answers
		if test.ended {
			f.end()
		}
		for i, answer := range test.answers {
			io.WriteString(f, answer)
			if n := len(strings.Join(out.parts, "")); n != test.want[i] {
				t.Errorf("%s: %d bytes have left after answer %d, want %d", test.name, n, i+1, test.want[i])
			}
		}
	}
}
