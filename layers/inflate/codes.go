package inflate

// codes decodes the symbols of a block.
func (d *Decoder) codes(buf []byte, at int) (int, error) {
	for {
		var ok bool
		if at, ok = d.fast(buf, at); !ok {
			return at, d.corrupt()
		}
		e, err := d.lookup(d.lit[:], litBits)
		switch {
		case err != nil:
			return at, err
		case e&literal != 0:
			if at == len(buf) {
				return at, errFull
			}
			d.take(codeLen(e))
			buf[at] = byte(e >> valueShift)
			at++
			continue
		case e&special != 0:
			if e>>valueShift != 0 {
				return at, d.corrupt()
			}
			d.take(codeLen(e))
			d.part = (*Decoder).header
			return at, nil
		}
		if d.left, err = d.value(e); err != nil {
			return at, err
		}
		if e, err = d.lookup(d.dist[:], distBits); err != nil {
			return at, err
		}
		if e&special != 0 {
			return at, d.corrupt()
		}
		if d.back, err = d.value(e); err != nil {
			return at, err
		}
		if d.back > at {
			return at, d.corrupt()
		}
		if at, err = d.match(buf, at); err != nil {
			return at, err
		}
	}
}

// value takes the code of e and its extra bits.
func (d *Decoder) value(e entry) (int, error) {
	n := uint(e & takenMask)
	if err := d.need(n); err != nil {
		return 0, err
	}
	v := value(e, d.bits)
	d.take(n)
	return v, nil
}

// match copies what is left of a match.
func (d *Decoder) match(buf []byte, at int) (int, error) {
	end := min(len(buf), at+d.left)
	d.left -= end - at
	for ; at < end; at++ {
		buf[at] = buf[at-d.back]
	}
	if d.left > 0 {
		d.part = (*Decoder).match
		return at, errFull
	}
	d.part = (*Decoder).codes
	return at, nil
}
