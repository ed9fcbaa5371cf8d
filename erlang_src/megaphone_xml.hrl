%% An XML element as all of ejabberd has it (the record of the library fast_xml, whose headers are not everywhere).
-record(xmlel, {
    name = <<>> :: binary(),
    attrs = [] :: [{binary(), binary()}],
    children = [] :: [#xmlel{} | {xmlcdata, binary()}]
}).
-type xmlel() :: #xmlel{}.
