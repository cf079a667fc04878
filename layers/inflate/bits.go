package inflate

import (
	"encoding/binary"
	"io"
)

// lookup decodes the next symbol and takes nothing.
func (d *Decoder) lookup(table []entry, size uint) (entry, error) {
	for {
		e := table[d.bits&(1<<size-1)]
		if e&link == link {
			e = table[subtable(e, d.bits, size)]
		}
		if codeLen(e) <= d.n {
			return e, nil
		}
		if err := d.load(); err != nil {
			return 0, err
		}
	}
}

// codeLen returns how long the code of e is.
func codeLen(e entry) uint { return uint(e >> lengthShift & lengthMask) }

// take returns n bits, which are in the buffer.
func (d *Decoder) take(n uint) uint {
	v := uint(d.bits & (1<<n - 1))
	d.bits >>= n
	d.n -= n
	return v
}

// need fills the buffer to n bits at least, 56 at most.
func (d *Decoder) need(n uint) error {
	for d.n < n {
		if err := d.load(); err != nil {
			return err
		}
	}
	return nil
}

// load fills the buffer, which has less than 56 bits, by one byte at least.
func (d *Decoder) load() error {
	if len(d.in)-d.pos >= 8 {
		d.bits |= binary.LittleEndian.Uint64(d.in[d.pos:]) << d.n
		d.pos += int(63-d.n) >> 3
		d.n |= 56
		return nil
	}
	if d.pos == len(d.in) {
		if err := d.more(); err != nil {
			return err
		}
	}
	d.bits |= uint64(d.in[d.pos]) << d.n
	d.pos++
	d.n += 8
	return nil
}

// more gets input behind what is at hand. It may give bits of the buffer back.
func (d *Decoder) more() error {
	if d.src == nil {
		return io.ErrUnexpectedEOF
	}
	d.sync()
	have := d.src.Buffered()
	if _, err := d.src.Peek(have + 1); err == io.EOF {
		return io.ErrUnexpectedEOF
	} else if err != nil {
		return err
	}
	d.in, _ = d.src.Peek(d.src.Buffered())
	return nil
}

// sync gives whole bytes of the bit buffer back, and moves the reader.
func (d *Decoder) sync() {
	d.unread()
	d.src.Discard(d.pos) // it has them
	d.read += int64(d.pos)
	d.in, d.pos = d.in[d.pos:], 0
}

func (d *Decoder) unread() {
	d.pos -= int(d.n >> 3)
	d.n &= 7
	d.bits &= 1<<d.n - 1
}

func (d *Decoder) corrupt() error {
	return CorruptError(d.read + int64(d.pos) - int64(d.n>>3))
}
