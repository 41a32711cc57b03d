package config

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
)

// TestForeignFiles: nothing of a file that is no configuration is shown, whatever
// is wrong with it.
func TestForeignFiles(t *testing.T) {
	word := regexp.MustCompile(`[A-Za-z0-9+/$]{6,}`)
	for name, text := range map[string]string{
		"shadow":            "rootuser:$6$saltsalt$hashhashhash:19000:0:99999:7:::\ndaemonuser:*:19000:0:99999:7:::\n",
		"a user named log":  "log:*:19000:0:swordfish:::\nanother:$6$saltsalt:::\n",
		"a private key":     "-----BEGIN OPENSSH PRIVATE KEY-----\nQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=\n-----END OPENSSH PRIVATE KEY-----\n",
		"a password":        "swordfish-of-twenty-characters",
		"a pair":            "swordfish: marlin\n",
		"pairs":             "swordfish: marlin\nswordfish: halibut\n",
		"a list":            "- swordfish\n- marlin\n",
		"a tag":             "!swordfish marlin\n",
		"an alias":          "swordfish: *marlin\n",
		"tabs":              "swordfish:\n\tmarlin: halibut\n",
		"a quote":           "\"swordfish marlin\nhalibut\n",
		"a bracket":         "{swordfish: [marlin, halibut}\n",
		"a control":         "swordfish\x01marlin\n",
		"not UTF-8":         "swordfish\xffmarlin\n",
		"a key within":      "swordfish:\n  pools: marlin\n",
		"a key in a folder": "  swordfish:\n  - pools: marlin\n",
		"two documents":     "swordfish\n---\nmarlin\n",
		"a comment first":   "# halibut of note\nswordfish: marlin\n",
		"a key in a quote":  "\"swordfish\npools: marlin\": halibut\n",
		"a key in a text":   "swordfish: |2\n    halibut\n  pools: marlin\n",
		"a tag of nothing":  "!swordfish {}\n",
		"an anchor of none": "&swordfish {}\n",
		"JSON":              "{\n  \"swordfish\": \"marlin\",\n  \"pools\", \"halibut\"\n",
		"a long line":       strings.Repeat("swordfish ", 10_000) + "\n",
	} {
		write(t, map[string]string{"a.yaml": minimal + "include: [other.conf]\n", "other.conf": text})
		_, ps := Load("a.yaml", checks)
		if ps == nil {
			t.Errorf("%s is taken for a configuration", name)
			continue
		}
		said := ps.Error()
		for _, w := range word.FindAllString(text, -1) {
			if strings.Contains(said, w) {
				t.Errorf("%s: %q is shown: %.300s", name, w, said)
				break
			}
		}
	}
	for _, text := range []string{"{other: 1, pools: {}}\n", "? pools\n: {}\n", "other:\n- x\npools: {}\n"} {
		if _, ps := decodeIncluded([]byte(text)); strings.Contains(ps.Error(), "not a configuration") {
			t.Errorf("%q is taken for another's", text)
		}
	}
	for _, text := range []string{"{}\n", "# ours\n---\n{}\n", "\xef\xbb\xbf{}\r\n"} {
		if _, ps := decodeIncluded([]byte(text)); ps != nil {
			t.Errorf("%q is taken for more than nothing: %s", text, ps.Error())
		}
	}
	for _, text := range []string{"pools: {}\n", "# ours\n\npools: {}\n", "---\npools: {}\n", "{pools: {}}\n", "  \"pools\" : {}\n", "", "# nothing\n", "unknown: x\nconnections: {}\n",
		"\xef\xbb\xbfpools: {}\n", "\xef\xbb\xbf# ours\r\npools: {}\r\n", "{\n  pools: {}\n}\n", "{\"pools\":{}}\n", "{\n\t\"pools\":{}\n}\n"} {
		if foreign([]byte(text)) {
			t.Errorf("%q is taken for another's", text)
		}
	}
}

// decodeIncluded is a load of one file that another one includes.
func decodeIncluded(src []byte) (*Config, Problems) {
	l := newLoader(checks)
	l.decode(&source{name: "other.conf", from: &source{name: "a.yaml"}, at: Pos{"a.yaml", 1, 1}}, src)
	return l.finish()
}

// FuzzForeign: of a file in which none of our keys is written nothing is shown.
func FuzzForeign(f *testing.F) {
	for _, text := range []string{"swordfish: marlin\n", "\"swordfish\nmarlin\": halibut\n", "- {swordfish: [marlin}\n", "swordfish:\n\tmarlin\n", "&a swordfish: *b\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		for _, name := range firstKeys.names() {
			if bytes.Contains(src, []byte(name)) {
				return
			}
		}
		if bytes.Contains(src, []byte(`\`)) { // an escape may spell one of them
			return
		}
		_, ps := decodeIncluded(src)
		said := strings.ReplaceAll(ps.Error(), notOurs(), "")
		const run = 5
		for i := 0; i+run <= len(src); i++ {
			if w := string(src[i : i+run]); strings.Contains(said, w) && !strings.Contains("a.yaml:1:1: include: other.conf: \n1 problem; nothing was changed", w) {
				t.Fatalf("%q is shown: %s", w, said)
			}
		}
	})
}
