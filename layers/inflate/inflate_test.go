package inflate

import (
	"bufio"
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	kpflate "github.com/klauspost/compress/flate"
)

// result is what became of a stream.
type result struct {
	data []byte
	read int // bytes of the stream that were taken, if err is nil
	err  error
}

// kind is the error, as far as decoders can agree on it.
func (r result) kind() string {
	_, ours := errors.AsType[CorruptError](r.err)
	_, theirs := errors.AsType[flate.CorruptInputError](r.err)
	switch {
	case r.err == nil:
		return "none"
	case r.err == io.ErrUnexpectedEOF:
		return "cut"
	case ours || theirs:
		return "corrupt"
	}
	return r.err.Error()
}

// standard is the oracle.
func standard(stream []byte) result {
	in := bytes.NewReader(stream)
	b, err := io.ReadAll(flate.NewReader(in))
	return result{b, len(stream) - in.Len(), err}
}

// whole is Decoder.Whole, in a buffer that has just the room needed.
func whole(stream []byte, size int) result {
	var d Decoder
	buf := make([]byte, size)
	n, read, err := d.Whole(buf, stream)
	return result{buf[:n], read, err}
}

// pieces is Decoder.Decode with buffers that have room for so many bytes.
func pieces(stream []byte, r io.Reader, room int) result {
	var d Decoder
	return decodeAll(&d, stream, bufio.NewReaderSize(r, 16), room)
}

func decodeAll(d *Decoder, stream []byte, in *bufio.Reader, room int) result {
	d.Reset(in)
	var out []byte
	for {
		history := out[max(0, len(out)-Window):]
		buf := append(slices.Clone(history), make([]byte, room)...)
		n, err := d.Decode(buf, len(history))
		out = append(out, buf[len(history):n]...)
		if err == io.EOF {
			rest, _ := io.ReadAll(in)
			return result{out, len(stream) - len(rest), nil}
		}
		if err != nil {
			return result{out, 0, err}
		}
	}
}

// same decodes the stream in every way and compares with compress/flate.
func same(t *testing.T, stream []byte) {
	t.Helper()
	want := standard(stream)
	behind := append(slices.Clone(stream), bytes.Repeat([]byte{0xa5}, 40)...)
	got := map[string]result{
		"whole":        whole(stream, len(want.data)+1000),
		"pieces":       pieces(stream, bytes.NewReader(stream), len(want.data)+1000),
		"few at once":  pieces(stream, bytes.NewReader(stream), max(997, len(want.data)/20)),
		"byte by byte": pieces(stream, iotest.OneByteReader(bytes.NewReader(stream)), min(4096, len(want.data)+1)),
	}
	if want.err == nil {
		got["whole, just enough room"] = whole(stream, len(want.data))
		got["whole, more behind"] = whole(behind, len(want.data)+500)
		r := pieces(behind, bytes.NewReader(behind), 5000)
		got["pieces, more behind"] = r
	}
	for name, got := range got {
		if got.kind() != want.kind() {
			t.Fatalf("%s: %d bytes, %v; want %d bytes, %v\n%x", name, len(got.data), got.err, len(want.data), want.err, head(stream))
		}
		if want.err == nil && (got.read != want.read || !bytes.Equal(got.data, want.data)) {
			t.Fatalf("%s: %d bytes from %d, want %d bytes from %d, the same\n%x", name, len(got.data), got.read, len(want.data), want.read, head(stream))
		}
		if k := min(len(got.data), len(want.data)); !bytes.Equal(got.data[:k], want.data[:k]) {
			t.Fatalf("%s: other bytes before %v\n%x", name, got.err, head(stream))
		}
	}
}

func head(b []byte) []byte { return b[:min(len(b), 1000)] }

func TestSoundStreams(t *testing.T) {
	streams := sound(t)
	for _, name := range slices.Sorted(maps.Keys(streams)) {
		if r := standard(streams[name]); r.err != nil {
			t.Errorf("%s: compress/flate: %v", name, r.err)
		}
		same(t, streams[name])
	}
}

func TestUnsoundStreams(t *testing.T) {
	for name, stream := range unsound() {
		if r := standard(stream); r.err == nil {
			t.Errorf("%s: compress/flate takes it", name)
		}
		same(t, stream)
	}
}

// small returns the streams that are short enough to be damaged everywhere.
func small(t testing.TB) [][]byte {
	var out [][]byte
	streams := sound(t)
	maps.Copy(streams, unsound())
	for _, name := range slices.Sorted(maps.Keys(streams)) {
		if s := streams[name]; len(s) < 150 && len(standard(s).data) < 2000 {
			out = append(out, s)
		}
	}
	return out
}

func TestEveryFlippedBit(t *testing.T) {
	for _, stream := range small(t) {
		for i := range len(stream) * 8 {
			damaged := slices.Clone(stream)
			damaged[i/8] ^= 1 << (i % 8)
			same(t, damaged)
		}
	}
}

func TestEveryCut(t *testing.T) {
	streams := small(t)
	streams = append(streams, deflated(t, words(5000), 6, true))
	for _, stream := range streams {
		for i := range stream {
			same(t, stream[:i])
		}
	}
}

// TestEveryRoom stops a stream between any two bytes of its output.
func TestEveryRoom(t *testing.T) {
	for _, b := range [][]byte{words(3000), make([]byte, 1500), bytes.Repeat([]byte("abcde"), 300)} {
		for _, level := range []int{0, 1, 6} {
			stream := deflated(t, b, level, true)
			for room := 1; room < 700; room += 1 + room/30 {
				if got := pieces(stream, bytes.NewReader(stream), room); got.err != nil || !bytes.Equal(got.data, b) {
					t.Fatalf("level %d, room %d: %d bytes, %v; want %d, the same", level, room, len(got.data), got.err, len(b))
				}
			}
		}
	}
}

// TestCodesOfAllShapes fills tables and subtables in ways that no encoder does.
func TestCodesOfAllShapes(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	shuffle := func(l []uint8) []uint8 {
		r.Shuffle(len(l), func(i, j int) { l[i], l[j] = l[j], l[i] })
		return l
	}
	for range 300 {
		lit := shuffle(append(shuffled(r, 2+r.IntN(285)), make([]uint8, 286)...)[:286])
		dist := shuffle(append(shuffled(r, 2+r.IntN(29)), make([]uint8, 30)...)[:30])
		if lit[256] == 0 {
			i := slices.IndexFunc(lit, func(l uint8) bool { return l > 0 })
			lit[256], lit[i] = lit[i], 0
		}
		same(t, block(lit, dist, func(w *bitWriter, l, d []code) {
			out := 0
			for range 2000 {
				s := r.IntN(286)
				if l[s].n == 0 || s == 256 {
					continue
				}
				e := litEntries[s]
				x := r.IntN(30)
				far := distEntries[x]
				if s > 256 && (d[x].n == 0 || int(far>>valueShift)+1<<(far&takenMask) > out) {
					continue
				}
				w.code(l[s])
				out++
				if s > 256 {
					w.bits(r.UintN(1<<(e&takenMask)), uint(e&takenMask))
					w.code(d[x])
					w.bits(r.UintN(1<<(far&takenMask)), uint(far&takenMask))
					out += int(e>>valueShift) - 1
				}
			}
			w.code(l[256])
		}))
	}
}

// TestAStreamDoesNotReachIntoAnother: the history of one stream is nothing to
// the next one in the same buffer, nor to the same decoder.
func TestAStreamDoesNotReachIntoAnother(t *testing.T) {
	var d Decoder
	buf := make([]byte, 1000)
	stream := fixedBlock('a', 'b', 'c', 256)
	d.Reset(bufio.NewReader(bytes.NewReader(stream)))
	n, err := d.Decode(buf, 0)
	if n != 3 || err != io.EOF {
		t.Fatalf("Decode = %d, %v", n, err)
	}
	stream = fixedBlock('x', 257, 1, 256) // one back further than itself
	d.Reset(bufio.NewReader(bytes.NewReader(stream)))
	if n, err = d.Decode(buf, n); n != 4 || err != CorruptError(len(stream)-1) {
		t.Errorf("Decode = %d, %v; want 4 and corrupt at byte %d", n, err, len(stream)-1)
	}
	if n, again := d.Decode(buf, n); n != 4 || again != err {
		t.Errorf("Decode again = %d, %v", n, again)
	}
}

// TestStreamsInARow: the reader ends up behind each stream, with what follows.
func TestStreamsInARow(t *testing.T) {
	var all []byte
	var want [][]byte
	for i, level := range []int{6, 0, 1, -2, 9} {
		want = append(want, words(1000*i+i))
		all = append(append(all, deflated(t, want[i], level, i%2 == 0)...), byte(i))
	}
	var d Decoder
	in := bufio.NewReaderSize(bytes.NewReader(all), 1<<14)
	buf := make([]byte, 10_000)
	for i := range want {
		d.Reset(in)
		n, err := d.Decode(buf, 0)
		if err != io.EOF || !bytes.Equal(buf[:n], want[i]) {
			t.Errorf("stream %d: %d bytes, %v", i, n, err)
		}
		if b, err := in.ReadByte(); b != byte(i) || err != nil {
			t.Errorf("behind stream %d: %d, %v", i, b, err)
		}
	}
}

// TestAReaderIsNotAskedForMore: what comes behind the stream may never come.
func TestAReaderIsNotAskedForMore(t *testing.T) {
	for name, stream := range sound(t) {
		if len(stream) > 10_000 {
			continue
		}
		in := io.MultiReader(iotest.OneByteReader(bytes.NewReader(stream)), iotest.ErrReader(errors.New("asked")))
		if got := pieces(stream, in, 300_000); got.err != nil {
			t.Errorf("%s: %v", name, got.err)
		}
	}
}

func TestReadersErrorsAreReturned(t *testing.T) {
	stream := deflated(t, words(5000), 6, true)
	broken := errors.New("broken")
	for i := range stream {
		in := io.MultiReader(bytes.NewReader(stream[:i]), iotest.ErrReader(broken))
		if got := pieces(stream, in, 1000); got.err != broken {
			t.Fatalf("broken at byte %d: %v", i, got.err)
		}
	}
}

func TestWholeSaysWhatDoesNotFit(t *testing.T) {
	b := words(5000)
	for _, level := range []int{0, 6} {
		stream := deflated(t, b, level, false)
		for _, size := range []int{0, 1, 4000, 4999} {
			if got := whole(stream, size); got.err != io.ErrShortBuffer || !bytes.Equal(got.data, b[:size]) {
				t.Errorf("level %d, room for %d: %d bytes, %v", level, size, len(got.data), got.err)
			}
		}
	}
}

func TestDecodingAllocatesNothing(t *testing.T) {
	stream := deflated(t, words(100_000), 6, false)
	var d Decoder
	buf := make([]byte, 100_000)
	if n := testing.AllocsPerRun(10, func() { d.Whole(buf, stream) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzDecode(f *testing.F) {
	for _, stream := range small(f) {
		f.Add(stream)
	}
	f.Add(deflated(f, words(3000), 9, true))
	f.Fuzz(func(t *testing.T, stream []byte) {
		if n, err := io.Copy(io.Discard, io.LimitReader(flate.NewReader(bytes.NewReader(stream)), 4<<20)); n == 4<<20 || err == io.ErrNoProgress {
			return // a bomb
		}
		same(t, stream)
		// What ours takes, a third decoder takes too.
		if want := standard(stream); want.err == nil {
			third, err := io.ReadAll(kpflate.NewReader(bytes.NewReader(stream)))
			if err != nil || !bytes.Equal(third, want.data) {
				t.Errorf("klauspost: %d bytes, %v; want %d, the same", len(third), err, len(want.data))
			}
		}
	})
}
