package wire

import "fmt"

// Names are those of the RFCs and of the IANA registry "IKEv2 Parameters"; a
// number without one is shown as a number, never trusted as text.

var exchangeNames = map[ExchangeType]string{
	IKESAInit:     "IKE_SA_INIT",
	IKEAuth:       "IKE_AUTH",
	CreateChildSA: "CREATE_CHILD_SA",
	Informational: "INFORMATIONAL",
}

func (t ExchangeType) String() string { return name(exchangeNames, t, "exchange") }

var payloadNames = map[PayloadType]string{
	NoNext: "none", TypeSA: "SA", TypeKE: "KE", TypeIDi: "IDi", TypeIDr: "IDr", TypeCert: "CERT", TypeCReq: "CERTREQ",
	TypeAuth: "AUTH", TypeNonce: "Nonce", TypeNotify: "N", TypeDelete: "D", TypeVendor: "V", TypeTSi: "TSi",
	TypeTSr: "TSr", TypeSK: "SK", TypeCP: "CP", TypeEAP: "EAP", TypeSKF: "SKF",
}

func (t PayloadType) String() string { return name(payloadNames, t, "payload") }

var protocolNames = map[ProtocolID]string{ProtoNone: "none", ProtoIKE: "IKE", ProtoAH: "AH", ProtoESP: "ESP"}

func (p ProtocolID) String() string { return name(protocolNames, p, "protocol") }

var transformNames = map[TransformType]string{
	TransformEncr: "ENCR", TransformPRF: "PRF", TransformInteg: "INTEG", TransformKE: "KE", TransformESN: "ESN",
}

func (t TransformType) String() string { return name(transformNames, t, "transform") }

var idNames = map[IDType]string{
	IDIPv4: "ID_IPV4_ADDR", IDFQDN: "ID_FQDN", IDRFC822: "ID_RFC822_ADDR", IDIPv6: "ID_IPV6_ADDR",
	IDDERDN: "ID_DER_ASN1_DN", IDKeyID: "ID_KEY_ID",
}

func (t IDType) String() string { return name(idNames, t, "ID type") }

func name[T ~uint8 | ~uint16](names map[T]string, v T, what string) string {
	if s, ok := names[v]; ok {
		return s
	}
	return fmt.Sprintf("%s %d", what, uint16(v))
}

var authNames = map[AuthMethod]string{
	AuthSharedKey: "shared key",
}

func (m AuthMethod) String() string { return name(authNames, m, "auth method") }

var cpNames = map[CPType]string{CFGRequest: "CFG_REQUEST", CFGReply: "CFG_REPLY"}

func (t CPType) String() string { return name(cpNames, t, "CFG type") }

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
	TemporaryFailure:           "TEMPORARY_FAILURE",
	ChildSANotFound:            "CHILD_SA_NOT_FOUND",
	InitialContact:             "INITIAL_CONTACT",
	NATDetectionSource:         "NAT_DETECTION_SOURCE_IP",
	NATDetectionDest:           "NAT_DETECTION_DESTINATION_IP",
	Cookie:                     "COOKIE",
	UseTransportMode:           "USE_TRANSPORT_MODE",
	RekeySA:                    "REKEY_SA",
	ESPTFCPaddingNotSupp:       "ESP_TFC_PADDING_NOT_SUPPORTED",
	MOBIKESupported:            "MOBIKE_SUPPORTED",
	FragmentationSupp:          "IKEV2_FRAGMENTATION_SUPPORTED",
}

func (t NotifyType) String() string { return name(notifyNames, t, "notify") }
