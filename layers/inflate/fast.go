package inflate

import "encoding/binary"

const (
	inSlack  = 24           // what a round may read: two refills, the second at its end
	outSlack = 3 + 258 + 31 // what a round may write: literals, a match, the rest of a copy's last 32 bytes
)

// steps is how many bytes of 8 are whole repetitions of a pattern.
var steps = [8]int{0, 8, 8, 6, 8, 5, 6, 7}

// fast decodes symbols as long as a round of its loop cannot come to the end of
// input or output: what codes does, without its questions. It stops before a
// symbol that is no literal or length, and returns false for a match that is
// wrong.
//
// A round is up to three literals, or up to two and a match. The first symbol of
// the next round is looked up before the match is copied, so that neither waits
// for the other. It is one long function because the compiler keeps the state in
// registers only within one, and what is called here is inlined.
func (d *Decoder) fast(buf []byte, at int) (int, bool) {
	in, pos := d.in[:len(d.in):len(d.in)], d.pos
	buf = buf[:len(buf):len(buf)]
	inEnd, outEnd := len(in)-inSlack, len(buf)-outSlack
	if pos > inEnd || at > outEnd {
		return at, true
	}
	lit, dist := d.lit, d.dist
	// Of n, only the low 6 bits count: an entry is subtracted as it is.
	pos, bits, n := refill(in, pos, d.bits, uint32(d.n))
	e := lit[bits&(1<<litBits-1)]
	ok := true
	for pos <= inEnd && at <= outEnd {
		if e&literal != 0 {
			w := (*[3]byte)(buf[at : at+3])
			w[0] = byte(e >> valueShift)
			bits >>= e & takenMask
			n -= e
			if e = lit[bits&(1<<litBits-1)]; e&literal != 0 {
				w[1] = byte(e >> valueShift)
				bits >>= e & takenMask
				n -= e
				if e = lit[bits&(1<<litBits-1)]; e&literal != 0 {
					w[2] = byte(e >> valueShift)
					pos, bits, n = refill(in, pos, bits>>(e&takenMask), n-e)
					at += 3
					e = lit[bits&(1<<litBits-1)]
					continue
				}
				at++
			}
			at++
		}
		if e&special != 0 {
			if e&link != link {
				break
			}
			e = lit[subtable(e, bits, litBits)&(litSize-1)]
			if e&literal != 0 {
				buf[at] = byte(e >> valueShift)
				at++
				pos, bits, n = refill(in, pos, bits>>(e&takenMask), n-e)
				e = lit[bits&(1<<litBits-1)]
				continue
			}
			if e&special != 0 {
				break
			}
		}
		length := value(e, bits)
		bits >>= e & takenMask
		n -= e
		if n&63 < maxDistBits {
			pos, bits, n = refill(in, pos, bits, n)
		}
		e = dist[bits&(1<<distBits-1)]
		if e&special != 0 {
			if e&link == link {
				e = dist[subtable(e, bits, distBits)&(distSize-1)]
			}
			if e&special != 0 {
				ok = false
				break
			}
		}
		back := value(e, bits)
		if back > at {
			ok = false
			break
		}
		pos, bits, n = refill(in, pos, bits>>(e&takenMask), n-e)
		e = lit[bits&(1<<litBits-1)]

		from, end := at-back, at+length
		switch {
		case back >= 16:
			copy32(buf, at, from)
			for length > 32 {
				at += 32
				from += 32
				length -= 32
				copy32(buf, at, from)
			}
		case back >= 8:
			for ; at < end; at, from = at+8, from+8 {
				*(*[8]byte)(buf[at : at+8]) = *(*[8]byte)(buf[from : from+8])
			}
		default:
			shift := uint(back) * 8
			v := binary.LittleEndian.Uint64(buf[from:from+8]) & (1<<shift - 1)
			v |= v << shift
			v |= v << (2 * shift)
			v |= v << (4 * shift)
			for step := steps[back&7]; at < end; at += step {
				binary.LittleEndian.PutUint64(buf[at:at+8], v)
			}
		}
		at = end
	}
	d.pos, d.bits, d.n = pos, bits, uint(n&63)
	return at, ok
}

// refill fills the bit buffer to 56 bits at least.
func refill(in []byte, pos int, bits uint64, n uint32) (int, uint64, uint32) {
	bits |= binary.LittleEndian.Uint64(in[pos:pos+8]) << (n & 63)
	return pos + 7 - int(n&63>>3), bits, n&63 | 56
}

// subtable returns the index that the link e leads to, behind size bits.
func subtable(e entry, bits uint64, size uint) uint64 {
	return uint64(e>>valueShift) + bits>>size&(1<<(e>>lengthShift&lengthMask)-1)
}

// value returns the length or distance of e, whose code is next in bits.
func value(e entry, bits uint64) int {
	return int(e>>valueShift) + int(bits&(1<<(e&takenMask)-1)>>(e>>lengthShift&lengthMask))
}

// copy32 copies 32 bytes forward, 16 at a time.
func copy32(buf []byte, at, from int) {
	dst, src := (*[32]byte)(buf[at:at+32]), (*[32]byte)(buf[from:from+32])
	*(*[16]byte)(dst[:16]) = *(*[16]byte)(src[:16])
	*(*[16]byte)(dst[16:]) = *(*[16]byte)(src[16:])
}
