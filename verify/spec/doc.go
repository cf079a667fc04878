// Package spec holds the specification of checks: what is looked at from
// outside to learn whether a root that was made live really serves. Flags, the
// wire and the registry hold it; package verify carries it out.
//
// A check has one text form, for flags, and one JSON form, for documents.
//
// # Text
//
// KEY=VALUE pairs, separated by commas, without spaces around them:
//
//	type=tls,addr=127.0.0.1:8443,sni=www.example.org,cert=etc/cert.pem
//	type=http,url=https://127.0.0.1:8443/version,host=www.example.org,json=/id,equals={newid}
//	type=tls,addr=mail.example.org:25,starttls=smtp,cert=etc/mail.pem
//	type=tcp,addr=127.0.0.1:6379,send=PING\r\n,expect=+PONG
//	type=exec,arg=bin/selftest,arg=--quick,name=selftest,timeout=30s
//
// A value that starts with a double quote ends at the next single one; between
// them commas are text, and two double quotes stand for one: body="a,""b""" is
// the text a,"b". Any other value is taken as it is up to the next comma, inner
// quotes included. Nothing else is special: there is no trimming, and a backslash
// means something in send and expect only, see Unescape. Each key may be given
// once, but for arg and header, which may be repeated.
//
// # JSON
//
// One object per check with the field names of Check, durations as text
// ("10s"). Readers refuse types, and fields of a check, that they do not know:
// what a field asks for would go unchecked. Fields of Spec that they do not know
// they pass over.
//
// The package is pure. Its values are safe for concurrent reading.
package spec
