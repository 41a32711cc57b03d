package wire

import (
	"fmt"
	"strings"
)

// The names are those of the RFCs and of the IANA registry "IKEv2 Parameters".
// A number without one is shown as a number.

var exchangeNames = map[ExchangeType]string{
	IKESAInit:        "IKE_SA_INIT",
	IKEAuth:          "IKE_AUTH",
	CreateChildSA:    "CREATE_CHILD_SA",
	Informational:    "INFORMATIONAL",
	IKESessionResume: "IKE_SESSION_RESUME",
	IKEIntermediate:  "IKE_INTERMEDIATE",
	IKEFollowupKE:    "IKE_FOLLOWUP_KE",
}

func (t ExchangeType) String() string { return name(exchangeNames, t, "exchange") }

// payloadNames are the RFC's notation in its message figures.
var payloadNames = map[PayloadType]string{
	NoNext:     "none",
	TypeSA:     "SA",
	TypeKE:     "KE",
	TypeIDi:    "IDi",
	TypeIDr:    "IDr",
	TypeCert:   "CERT",
	TypeCReq:   "CERTREQ",
	TypeAuth:   "AUTH",
	TypeNonce:  "Nonce",
	TypeNotify: "N",
	TypeDelete: "D",
	TypeVendor: "V",
	TypeTSi:    "TSi",
	TypeTSr:    "TSr",
	TypeSK:     "SK",
	TypeCP:     "CP",
	TypeEAP:    "EAP",
	TypeSKF:    "SKF",
}

func (t PayloadType) String() string { return name(payloadNames, t, "payload") }

var protocolNames = map[ProtocolID]string{
	ProtoNone: "none",
	ProtoIKE:  "IKE",
	ProtoAH:   "AH",
	ProtoESP:  "ESP",
}

func (p ProtocolID) String() string { return name(protocolNames, p, "protocol") }

var transformNames = map[TransformType]string{
	TransformEncr:  "ENCR",
	TransformPRF:   "PRF",
	TransformInteg: "INTEG",
	TransformKE:    "KE",
	TransformESN:   "ESN",
}

func (t TransformType) String() string { return name(transformNames, t, "transform") }

var idNames = map[IDType]string{
	IDIPv4:   "ID_IPV4_ADDR",
	IDFQDN:   "ID_FQDN",
	IDRFC822: "ID_RFC822_ADDR",
	IDIPv6:   "ID_IPV6_ADDR",
	IDDERDN:  "ID_DER_ASN1_DN",
	IDDERGN:  "ID_DER_ASN1_GN",
	IDKeyID:  "ID_KEY_ID",
	IDNull:   "ID_NULL",
}

func (t IDType) String() string { return name(idNames, t, "identity") }

var authNames = map[AuthMethod]string{
	AuthRSA:       "RSA",
	AuthSharedKey: "shared key",
	AuthECDSA256:  "ECDSA-256",
	AuthECDSA384:  "ECDSA-384",
	AuthECDSA521:  "ECDSA-521",
	AuthNull:      "NULL",
	AuthSignature: "signature",
}

func (m AuthMethod) String() string { return name(authNames, m, "method") }

var cpNames = map[CPType]string{
	CFGRequest: "CFG_REQUEST",
	CFGReply:   "CFG_REPLY",
	CFGSet:     "CFG_SET",
	CFGAck:     "CFG_ACK",
}

func (t CPType) String() string { return name(cpNames, t, "configuration") }

var notifyNames = map[NotifyType]string{
	UnsupportedCriticalPayload: "UNSUPPORTED_CRITICAL_PAYLOAD",
	InvalidIKESPI:              "INVALID_IKE_SPI",
	InvalidMajorVersion:        "INVALID_MAJOR_VERSION",
	InvalidSyntax:              "INVALID_SYNTAX",
	InvalidMessageID:           "INVALID_MESSAGE_ID",
	InvalidSPI:                 "INVALID_SPI",
	NoProposalChosen:           "NO_PROPOSAL_CHOSEN",
	InvalidKEPayload:           "INVALID_KE_PAYLOAD",
	AuthenticationFailed:       "AUTHENTICATION_FAILED",
	SinglePairRequired:         "SINGLE_PAIR_REQUIRED",
	NoAdditionalSAs:            "NO_ADDITIONAL_SAS",
	InternalAddressFailure:     "INTERNAL_ADDRESS_FAILURE",
	FailedCPRequired:           "FAILED_CP_REQUIRED",
	TSUnacceptable:             "TS_UNACCEPTABLE",
	InvalidSelectors:           "INVALID_SELECTORS",
	UnacceptableAddresses:      "UNACCEPTABLE_ADDRESSES",
	UnexpectedNATDetected:      "UNEXPECTED_NAT_DETECTED",
	TemporaryFailure:           "TEMPORARY_FAILURE",
	ChildSANotFound:            "CHILD_SA_NOT_FOUND",

	InitialContact:         "INITIAL_CONTACT",
	SetWindowSize:          "SET_WINDOW_SIZE",
	AdditionalTSPossible:   "ADDITIONAL_TS_POSSIBLE",
	IPCompSupported:        "IPCOMP_SUPPORTED",
	NATDetectionSource:     "NAT_DETECTION_SOURCE_IP",
	NATDetectionDest:       "NAT_DETECTION_DESTINATION_IP",
	Cookie:                 "COOKIE",
	UseTransportMode:       "USE_TRANSPORT_MODE",
	HTTPCertLookupSupp:     "HTTP_CERT_LOOKUP_SUPPORTED",
	RekeySA:                "REKEY_SA",
	ESPTFCPaddingNotSupp:   "ESP_TFC_PADDING_NOT_SUPPORTED",
	NonFirstFragmentsAlso:  "NON_FIRST_FRAGMENTS_ALSO",
	MOBIKESupported:        "MOBIKE_SUPPORTED",
	AdditionalIP4Address:   "ADDITIONAL_IP4_ADDRESS",
	AdditionalIP6Address:   "ADDITIONAL_IP6_ADDRESS",
	NoAdditionalAddresses:  "NO_ADDITIONAL_ADDRESSES",
	UpdateSAAddresses:      "UPDATE_SA_ADDRESSES",
	Cookie2:                "COOKIE2",
	NoNATsAllowed:          "NO_NATS_ALLOWED",
	AuthLifetime:           "AUTH_LIFETIME",
	MultipleAuthSupported:  "MULTIPLE_AUTH_SUPPORTED",
	AnotherAuthFollows:     "ANOTHER_AUTH_FOLLOWS",
	RedirectSupported:      "REDIRECT_SUPPORTED",
	Redirect:               "REDIRECT",
	RedirectedFrom:         "REDIRECTED_FROM",
	EAPOnlyAuthentication:  "EAP_ONLY_AUTHENTICATION",
	ChildlessSupported:     "CHILDLESS_IKEV2_SUPPORTED",
	FragmentationSupp:      "IKEV2_FRAGMENTATION_SUPPORTED",
	SignatureHashAlgorithm: "SIGNATURE_HASH_ALGORITHMS",
	IntermediateSupported:  "INTERMEDIATE_EXCHANGE_SUPPORTED",
}

func (t NotifyType) String() string { return name(notifyNames, t, "notify") }

var flagNames = []struct {
	flag Flags
	name string
}{{FlagInitiator, "initiator"}, {FlagVersion, "version"}, {FlagResponse, "response"}}

// String names the flags that are set; bits without a name stay a number.
func (f Flags) String() string {
	var names []string
	for _, n := range flagNames {
		if f&n.flag != 0 {
			names = append(names, n.name)
			f &^= n.flag
		}
	}
	if f != 0 || len(names) == 0 {
		names = append(names, fmt.Sprintf("0x%02x", uint8(f)))
	}
	return strings.Join(names, ",")
}

func name[T ~uint8 | ~uint16](names map[T]string, v T, what string) string {
	if s, ok := names[v]; ok {
		return s
	}
	return fmt.Sprintf("%s %d", what, uint16(v))
}
