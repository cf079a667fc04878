package verify

import (
	"errors"
	"fmt"
	"io"
)

// startLDAP is RFC 4511 section 4.14.
func startLDAP(t *talk) error {
	const oid = "1.3.6.1.4.1.1466.20037"
	// LDAPMessage{1, ExtendedRequest{requestName oid}} in BER.
	if _, err := t.conn.Write(append([]byte{0x30, 29, 0x02, 1, 1, 0x77, 24, 0x80, 22}, oid...)); err != nil {
		return err
	}
	tag, message, err := t.element()
	if err != nil {
		return fmt.Errorf("answer to StartTLS: %w", err)
	}
	code, text, err := extendedResponse(tag, message)
	if err != nil {
		return fmt.Errorf("StartTLS is answered with %s: %w", excerpt(message), err)
	}
	if code != 0 {
		return fmt.Errorf("StartTLS is answered with result code %d: %s", code, excerpt(text))
	}
	return nil
}

// element reads one BER element.
func (t *talk) element() (tag byte, content []byte, err error) {
	head := make([]byte, 2, 6)
	if _, err := io.ReadFull(t.r, head); err != nil {
		return 0, nil, t.ended(err, nil)
	}
	if head[1] > 0x80 && head[1] <= 0x84 {
		head = head[:2+head[1]&0x7f]
		if _, err := io.ReadFull(t.r, head[2:]); err != nil {
			return 0, nil, t.ended(err, head[:2])
		}
	}
	n, _, ok := berLength(head[1:])
	if !ok || n > maxLineBytes {
		return 0, nil, fmt.Errorf("begins with %s, want an element of at most %d bytes", excerpt(head), maxLineBytes)
	}
	content = make([]byte, n)
	if _, err := io.ReadFull(t.r, content); err != nil {
		return 0, nil, t.ended(err, nil)
	}
	return head[0], content, nil
}

// berLength reads a definite length of up to four bytes, in the long form too
// where the short one would do: some directories write nothing else.
func berLength(b []byte) (n int, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	first, b := int(b[0]), b[1:]
	if first < 0x80 {
		return first, b, true
	}
	count := first & 0x7f
	if count == 0 || count > 4 || count > len(b) {
		return 0, nil, false
	}
	for _, c := range b[:count] {
		n = n<<8 | int(c)
	}
	return n, b[count:], true
}

// cutElement takes the first element off b, which must have the tag.
func cutElement(b []byte, tag byte) (content, rest []byte, err error) {
	if len(b) == 0 || b[0] != tag {
		return nil, nil, fmt.Errorf("no element with tag 0x%02x", tag)
	}
	n, b, ok := berLength(b[1:])
	if !ok || n > len(b) {
		return nil, nil, fmt.Errorf("the element with tag 0x%02x is cut off", tag)
	}
	return b[:n], b[n:], nil
}

// extendedResponse reads what answers the message 1: the result code, and what
// is said about it.
func extendedResponse(tag byte, message []byte) (code int, text []byte, err error) {
	id, rest, errID := cutElement(message, 0x02)
	response, _, err := cutElement(rest, 0x78)
	if tag != 0x30 || errID != nil || err != nil || len(id) != 1 || id[0] != 1 {
		return 0, nil, errors.New("want an ExtendedResponse")
	}
	result, rest, err := cutElement(response, 0x0a)
	if err != nil || len(result) != 1 {
		return 0, nil, errors.New("want a result code")
	}
	if _, more, err := cutElement(rest, 0x04); err == nil { // matchedDN
		text, _, _ = cutElement(more, 0x04)
	}
	return int(result[0]), text, nil
}
