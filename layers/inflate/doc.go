// Package inflate decodes DEFLATE streams (RFC 1951): unpacking layers is what
// the product does all day, and decoding is most of it.
//
// It accepts and refuses the same streams as compress/flate, ends where that
// ends, and is about three times as fast (docs/decisions/0006). A Decoder writes
// into the buffers of its caller, who keeps the last Window bytes in front of
// what comes next, so that nothing is copied on its way:
//
//	d.Reset(r)
//	for n := 0; ; {
//		k, err := d.Decode(buf, n)
//		use(buf[n:k])
//		if err != nil {
//			break // io.EOF: r is behind the stream
//		}
//		n = copy(buf, buf[max(0, k-inflate.Window):k])
//	}
//
// Nothing in a stream can make it write outside the buffer or panic: indexes into
// tables are masked to their size, the others are checked.
package inflate
