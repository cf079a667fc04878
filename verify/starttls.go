package verify

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
)

// Limits of what is heard before the handshake. RFC 5321 section 4.5.3.1.5
// allows a line 512 bytes; capabilities of IMAP are longer.
const (
	maxLineBytes = 4096
	maxTalkBytes = 64 << 10
)

// startTLS has, for each protocol, what is said until both sides begin with
// the handshake.
var startTLS = map[string]func(*talk) error{
	"smtp":     startSMTP,
	"imap":     startIMAP,
	"pop3":     startPOP3,
	"sieve":    startSieve,
	"ftp":      startFTP,
	"ldap":     startLDAP,
	"postgres": startPostgres,
}

// upgrade asks for TLS in the way of protocol. What comes after the consent and
// before the handshake is refused: it is plain text, which anyone on the way
// may have put there to be taken as protected (RFC 3207 section 6, CVE-2011-0411).
func upgrade(conn net.Conn, protocol string) error {
	limit := &io.LimitedReader{R: conn, N: maxTalkBytes}
	t := &talk{r: bufio.NewReaderSize(limit, maxLineBytes), limit: limit, conn: conn}
	err := startTLS[protocol](t)
	if n := t.r.Buffered(); err == nil && n > 0 {
		rest, _ := t.r.Peek(n)
		err = fmt.Errorf("plain text after the consent to TLS: %s", excerpt(rest))
	}
	if err != nil {
		return &failure{StartTLS, fmt.Errorf("%s at %s: %w", protocol, conn.RemoteAddr(), err)}
	}
	return nil
}

// talk is a conversation in plain text.
type talk struct {
	r     *bufio.Reader
	limit *io.LimitedReader
	conn  net.Conn
}

func (t *talk) say(line string) error {
	_, err := io.WriteString(t.conn, line+"\r\n")
	return err
}

// line returns the next line without its end.
func (t *talk) line() (string, error) {
	b, err := t.r.ReadSlice('\n')
	switch {
	case err == nil:
		return strings.TrimRight(string(b), "\r\n"), nil
	case errors.Is(err, bufio.ErrBufferFull):
		return "", fmt.Errorf("a line has more than %d bytes: %s", maxLineBytes, excerpt(b))
	}
	return "", t.ended(err, b)
}

// ended says why nothing more was heard.
func (t *talk) ended(err error, heard []byte) error {
	switch {
	case errors.Is(err, io.EOF) && t.limit.N <= 0:
		return fmt.Errorf("no end after %d bytes", maxTalkBytes)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the connection was closed after %s", excerpt(heard))
	}
	return err
}

// reply reads a reply of SMTP or FTP: lines that begin with a code, or one that
// has a dash behind it and all up to the line that has none (RFC 5321 section
// 4.2.1, RFC 959 section 4.2). It is an error if the code is not want.
func (t *talk) reply(to, want string) ([]string, error) {
	var lines []string
	for {
		line, err := t.line()
		if err != nil {
			return nil, fmt.Errorf("answer to %s: %w", to, err)
		}
		lines = append(lines, line)
		first := lines[0]
		if !strings.HasPrefix(first, want) || len(first) > 3 && first[3] != ' ' && first[3] != '-' {
			return nil, fmt.Errorf("%s is answered with %s, want %s", to, excerpt([]byte(first)), want)
		}
		if line == want || strings.HasPrefix(line, want+" ") {
			return lines, nil
		}
	}
}

// startSMTP is RFC 3207.
func startSMTP(t *talk) error {
	if _, err := t.reply("connecting", "220"); err != nil {
		return err
	}
	if err := t.say("EHLO " + literal(t.conn.LocalAddr())); err != nil {
		return err
	}
	offers, err := t.reply("EHLO", "250")
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(offers[1:], func(line string) bool { return len(line) > 4 && strings.EqualFold(line[4:], "STARTTLS") }) {
		return errors.New("STARTTLS is not offered")
	}
	if err := t.say("STARTTLS"); err != nil {
		return err
	}
	_, err = t.reply("STARTTLS", "220")
	return err
}

// literal names this end in an EHLO, RFC 5321 section 4.1.3: its own name
// might not be known where it asks.
func literal(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	switch {
	case !ok:
		return "localhost"
	case tcp.IP.To4() != nil:
		return "[" + tcp.IP.String() + "]"
	}
	return "[IPv6:" + tcp.IP.String() + "]"
}

// startIMAP is RFC 9051 section 6.2.1.
func startIMAP(t *talk) error {
	greeting, err := t.line()
	if err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	// In PREAUTH there is no STARTTLS any more: section 7.1.4.
	if !hasWord(greeting, "* OK") {
		return fmt.Errorf("it greets with %s, want * OK", excerpt([]byte(greeting)))
	}
	if err := t.say("a STARTTLS"); err != nil {
		return err
	}
	for {
		line, err := t.line()
		switch {
		case err != nil:
			return fmt.Errorf("answer to STARTTLS: %w", err)
		case hasWord(line, "a OK"):
			return nil
		case !strings.HasPrefix(line, "* "):
			return fmt.Errorf("STARTTLS is answered with %s, want OK", excerpt([]byte(line)))
		}
	}
}

// startPOP3 is RFC 2595 section 4.
func startPOP3(t *talk) error {
	if err := t.want("connecting", "+OK"); err != nil {
		return err
	}
	if err := t.say("STLS"); err != nil {
		return err
	}
	return t.want("STLS", "+OK")
}

// want reads one line, which must begin with word.
func (t *talk) want(to, word string) error {
	line, err := t.line()
	if err != nil {
		return fmt.Errorf("answer to %s: %w", to, err)
	}
	if !hasWord(line, word) {
		return fmt.Errorf("%s is answered with %s, want %s", to, excerpt([]byte(line)), word)
	}
	return nil
}

// hasWord reports whether line begins with words as whole ones, in any case.
func hasWord(line, words string) bool {
	n := len(words)
	return len(line) >= n && strings.EqualFold(line[:n], words) && (len(line) == n || line[n] == ' ')
}

// startSieve is RFC 5804 section 2.2.
func startSieve(t *talk) error {
	offered := false
	for {
		line, err := t.line()
		if err != nil {
			return fmt.Errorf("greeting: %w", err)
		}
		if hasWord(line, "OK") {
			break
		}
		if !strings.HasPrefix(line, `"`) {
			return fmt.Errorf("it greets with %s, want capabilities and OK", excerpt([]byte(line)))
		}
		offered = offered || hasWord(line, `"STARTTLS"`)
	}
	if !offered {
		return errors.New("STARTTLS is not offered")
	}
	if err := t.say("STARTTLS"); err != nil {
		return err
	}
	return t.want("STARTTLS", "OK")
}

// startFTP is RFC 4217 section 4.
func startFTP(t *talk) error {
	if _, err := t.reply("connecting", "220"); err != nil {
		return err
	}
	if err := t.say("AUTH TLS"); err != nil {
		return err
	}
	_, err := t.reply("AUTH TLS", "234")
	return err
}

// startPostgres is section 55.2.10 of PostgreSQL's manual, SSL Session
// Encryption: an SSLRequest, and one byte as the answer.
func startPostgres(t *talk) error {
	if _, err := t.conn.Write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}); err != nil {
		return err
	}
	b, err := t.r.ReadByte()
	switch {
	case err != nil:
		return fmt.Errorf("answer to SSLRequest: %w", t.ended(err, nil))
	case b == 'N':
		return errors.New("TLS is not offered")
	case b != 'S':
		return fmt.Errorf("SSLRequest is answered with %s, want S", excerpt([]byte{b}))
	}
	return nil
}
