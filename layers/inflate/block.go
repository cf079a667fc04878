package inflate

import "io"

// header begins a block, or ends the stream behind the last.
func (d *Decoder) header(_ []byte, at int) (int, error) {
	if d.final {
		return at, io.EOF
	}
	if err := d.need(3); err != nil {
		return at, err
	}
	d.final = d.take(1) == 1
	switch d.take(2) {
	case 0:
		return at, d.startStored()
	case 1:
		d.lit, d.dist = fixed()
		d.part = (*Decoder).codes
		return at, nil
	case 2:
		d.part = (*Decoder).codes
		return at, d.dynamic()
	}
	return at, d.corrupt()
}

// startStored reads the header of a stored block (RFC 1951 section 3.2.4).
func (d *Decoder) startStored() error {
	d.unread()
	d.bits, d.n = 0, 0
	if err := d.need(32); err != nil {
		return err
	}
	size, inverse := d.take(16), d.take(16)
	if size != ^inverse&0xffff {
		return d.corrupt()
	}
	d.unread()
	d.left, d.part = int(size), (*Decoder).stored
	return nil
}

// stored copies a stored block. No bits are in the buffer.
func (d *Decoder) stored(buf []byte, at int) (int, error) {
	for d.left > 0 {
		if at == len(buf) {
			return at, errFull
		}
		if d.pos == len(d.in) {
			if err := d.more(); err != nil {
				return at, err
			}
		}
		k := copy(buf[at:], d.in[d.pos:min(len(d.in), d.pos+d.left)])
		at += k
		d.pos += k
		d.left -= k
	}
	d.part = (*Decoder).header
	return at, nil
}

// preOrder is the order in which the lengths of the codes for lengths come.
var preOrder = [preSymbols]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// dynamic reads the codes of a block (RFC 1951 section 3.2.7).
func (d *Decoder) dynamic() error {
	if err := d.need(14); err != nil {
		return err
	}
	lits, dists, pres := int(d.take(5))+257, int(d.take(5))+1, int(d.take(4))+4
	if lits > 286 || dists > 30 {
		return d.corrupt()
	}
	var lengths [preSymbols]uint8
	for _, symbol := range preOrder[:pres] {
		if err := d.need(3); err != nil {
			return err
		}
		lengths[symbol] = uint8(d.take(3))
	}
	if !build(d.pre[:], preBits, lengths[:], preEntries[:]) {
		return d.corrupt()
	}
	if err := d.readLengths(d.lengths[:lits+dists]); err != nil {
		return err
	}
	if !build(d.ownLit[:], litBits, d.lengths[:lits], litEntries[:]) || !build(d.ownDist[:], distBits, d.lengths[lits:lits+dists], distEntries[:]) {
		return d.corrupt()
	}
	d.lit, d.dist = &d.ownLit, &d.ownDist
	return nil
}

// readLengths reads code lengths, which are coded themselves.
func (d *Decoder) readLengths(lengths []uint8) error {
	for i := 0; i < len(lengths); {
		e, err := d.lookup(d.pre[:], preBits)
		if err != nil {
			return err
		}
		if e&special != 0 {
			return d.corrupt()
		}
		d.take(codeLen(e))
		symbol := uint8(e >> valueShift)
		if symbol < 16 {
			lengths[i] = symbol
			i++
			continue
		}
		var extra, least uint
		value := uint8(0)
		switch symbol {
		case 16:
			if i == 0 {
				return d.corrupt()
			}
			extra, least, value = 2, 3, lengths[i-1]
		case 17:
			extra, least = 3, 3
		case 18:
			extra, least = 7, 11
		}
		if err := d.need(extra); err != nil {
			return err
		}
		end := i + int(least+d.take(extra))
		if end > len(lengths) {
			return d.corrupt()
		}
		for ; i < end; i++ {
			lengths[i] = value
		}
	}
	return nil
}
