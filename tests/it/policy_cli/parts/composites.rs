//! The claims that methods' platforms put together, and who chooses which part.

/// Who chooses a part, and of which letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// Nobody who writes or pushes a job.
    Set,
    /// Whoever may push: what Git takes as a branch's or tag's name.
    Branch,
    /// Whoever writes the job: a name of any letters.
    Name,
    /// The same, but `:` is escaped or not taken.
    Escaped,
    /// The same, in a folder: no `/`.
    File,
}
use Chosen::{Branch, Escaped, File, Name, Set};

/// What stands in front of a part, the part in an honest job, and who chooses it.
pub type Form = &'static [(&'static str, &'static str, Chosen)];

/// A claim of one method, with the forms that it has there.
#[derive(Debug)]
pub struct Composite {
    pub method: &'static str,
    /// The section in front of `allow`.
    pub section: &'static str,
    /// The rest of the rule.
    pub beside: &'static str,
    pub field: &'static str,
    pub claim: &'static str,
    pub forms: &'static [Form],
}

const GITHUB: &str = "";
pub const SERVER: &str = "enterprise_server_host: git.example.com, ";
const UUID: &str = "8f1f3a5e-6a2c-4a3b-9d57-2f0d0b7e5c11";
const CIRCLE: &str = "organization_id: 8f1f3a5e-6a2c-4a3b-9d57-2f0d0b7e5c11, ";
const BUCKET: &str = "identity_provider_url: 'https://api.bitbucket.org/x', ";
const SPACE: &str = "hostname: a.app.spacelift.io, ";
const AZURE: &str = "organization_id: 8f1f3a5e-6a2c-4a3b-9d57-2f0d0b7e5c11, ";
const ID: &str = "repository_id: '7', ";

const SUBJECTS: &[Form] = &[
    &[("repo:", "octo-org", Set), ("/", "app", Set), (":ref:", "refs/heads/main", Branch)],
    &[("repo:", "octo-org", Set), ("/", "app", Set), (":environment:", "prod", Escaped)],
    &[("repo:", "octo-org", Set), ("/", "app", Set), (":pull_request", "", Set)],
    &[("repo:", "octo-org@65", Set), ("/", "app@74", Set), (":environment:", "prod", Escaped)],
    &[
        ("repo:", "octo-org", Set),
        ("/", "app", Set),
        (":environment:", "prod", Escaped),
        (":ref:", "refs/heads/main", Branch),
    ],
    &[
        ("repo:", "octo-org", Set),
        ("/", "app", Set),
        (":ref:", "refs/heads/main", Branch),
        (":workflow_ref:", "octo-org", Set),
        ("/", "app", Set),
        ("/.github/workflows/", "deploy.yml", File),
        ("@", "refs/heads/main", Branch),
    ],
    &[
        ("repository_owner:", "octo-org", Set),
        (":head_ref:", "main", Branch),
        (":job_workflow_ref:", "octo-org", Set),
        ("/", "ci", Set),
        ("/.github/workflows/", "deploy.yml", File),
        ("@", "refs/heads/main", Branch),
    ],
];
/// As servers before 3.19 write them.
const UNESCAPED: &[Form] = &[
    &[("repo:", "octo-org", Set), ("/", "app", Set), (":ref:", "refs/heads/main", Branch)],
    &[("repo:", "octo-org", Set), ("/", "app", Set), (":environment:", "prod", Name)],
    &[
        ("repo:", "octo-org", Set),
        ("/", "app", Set),
        (":environment:", "prod", Name),
        (":ref:", "refs/heads/main", Branch),
    ],
    &[
        ("repo:", "octo-org", Set),
        ("/", "app", Set),
        (":workflow:", "deploy", Name),
        (":ref:", "refs/heads/main", Branch),
    ],
];
const WORKFLOW: &[Form] = &[&[
    ("", "octo-org", Set),
    ("/", "app", Set),
    ("/.github/workflows/", "deploy.yml", File),
    ("@", "refs/heads/main", Branch),
]];

/// Of a project, or of a group within another.
const fn gitlab_path(field: &'static str) -> Composite {
    let forms: &[Form] = &[
        &[("", "octo", Set), ("/", "app", File)],
        &[("", "octo", Set), ("/", "team", File), ("/", "app", File)],
    ];
    Composite { method: "gitlab", section: "", beside: "project_id: '7', ", field, claim: field, forms }
}

pub static COMPOSITES: &[Composite] = &[
    Composite { method: "github", section: GITHUB, beside: ID, field: "sub", claim: "sub", forms: SUBJECTS },
    Composite { method: "github", section: SERVER, beside: ID, field: "sub", claim: "sub", forms: UNESCAPED },
    Composite {
        method: "github",
        section: GITHUB,
        beside: ID,
        field: "workflow_ref",
        claim: "workflow_ref",
        forms: WORKFLOW,
    },
    Composite {
        method: "github",
        section: SERVER,
        beside: ID,
        field: "job_workflow_ref",
        claim: "job_workflow_ref",
        forms: WORKFLOW,
    },
    Composite {
        method: "github",
        section: GITHUB,
        beside: ID,
        field: "repository",
        claim: "repository",
        forms: &[&[("", "octo-org", Set), ("/", "app", Set)]],
    },
    Composite {
        method: "circleci",
        section: CIRCLE,
        beside: "",
        field: "sub",
        claim: "sub",
        forms: &[
            &[("org/", UUID, Set), ("/project/", "p1", Set), ("/user/", "u1", Set)],
            &[
                ("org/", UUID, Set),
                ("/project/", "p1", Set),
                ("/user/", "u1", Set),
                ("/vcs-origin/", "github.com/octo-org/app", Set),
                ("/vcs-ref/", "refs/heads/main", Branch),
            ],
        ],
    },
    Composite {
        method: "circleci",
        section: CIRCLE,
        beside: "",
        field: "vcs_origin",
        claim: "oidc.circleci.com/vcs-origin",
        forms: &[&[("", "github.com", Set), ("/", "octo-org", File), ("/", "app", File)]],
    },
    Composite {
        method: "gitlab",
        section: "",
        beside: "project_id: '7', ",
        field: "sub",
        claim: "sub",
        forms: &[
            &[("project_path:", "octo/app", Set), (":ref_type:", "branch", Set), (":ref:", "main", Branch)],
            &[("project_path:", "octo/app", Set), (":ref:", "main", Branch), (":ref_type:", "tag", Set)],
            &[("project_path:", "octo/app", Set), (":ref:", "main", Branch)],
        ],
    },
    Composite {
        method: "gitlab",
        section: "",
        beside: "project_id: '7', ",
        field: "ci_config_ref_uri",
        claim: "ci_config_ref_uri",
        forms: &[&[
            ("", "gitlab.com/octo/app", Set),
            ("//", "ci/deploy.yml", Set),
            ("@refs/", "heads/main", Branch),
        ]],
    },
    gitlab_path("project_path"),
    gitlab_path("namespace_path"),
    gitlab_path("job_project_path"),
    gitlab_path("job_namespace_path"),
    Composite {
        method: "buildkite",
        section: "",
        beside: "organization_id: x, ",
        field: "sub",
        claim: "sub",
        forms: &[
            &[
                ("organization:", "octo", Set),
                (":pipeline:", "app", Set),
                // The API and triggers take any text for a branch and for a commit.
                (":ref:", "refs/heads/main", Name),
                (":commit:", "9f3182061f1e2cca4702c368cbc039b7dc9d4485", Name),
                (":step:", "deploy", Name),
            ],
            &[("", "0184990a-4782-42b5-afc1-16715b10b1a0", Set)],
        ],
    },
    Composite {
        method: "bitbucket",
        section: BUCKET,
        beside: "workspace_uuid: '{x}', ",
        field: "sub",
        claim: "sub",
        forms: &[
            &[("", "{r1}", Set), (":", "{s1}", Set)],
            &[("", "{r1}", Set), (":", "{e1}", Set), (":", "{s1}", Set)],
        ],
    },
    Composite {
        method: "azure-devops",
        section: AZURE,
        beside: "project_id: x, ",
        field: "sub",
        claim: "sub",
        forms: &[&[("p://", "octo", Set), ("/", "app", Set), ("/", "deploy", File)]],
    },
    Composite {
        method: "azure-devops",
        section: AZURE,
        beside: "project_id: x, ",
        field: "repository_uri",
        claim: "rpo_uri",
        forms: &[&[
            ("", "https:", Set),
            ("/", "", Set),
            ("/", "github.com", Set),
            ("/", "octo-org", Set),
            ("/", "app", File),
        ]],
    },
    Composite {
        method: "spacelift",
        section: SPACE,
        beside: "space_id: s, ",
        field: "sub",
        claim: "sub",
        forms: &[&[
            ("space:", "s", Set),
            (":", "stack", Set),
            (":", "infra", Escaped),
            (":run_type:", "TRACKED", Set),
            (":scope:", "write", Set),
        ]],
    },
    Composite {
        method: "terraform_cloud",
        section: "",
        beside: "organization_id: o, project_id: p, ",
        field: "sub",
        claim: "sub",
        forms: &[&[
            ("organization:", "octo", Set),
            (":project:", "Default Project", Escaped),
            (":workspace:", "prod", Escaped),
            (":run_phase:", "apply", Set),
        ]],
    },
    Composite {
        method: "iam",
        section: "",
        beside: "aws_account: '123456789012', ",
        field: "aws_arn",
        claim: "aws_arn",
        forms: &[
            &[
                ("arn:", "aws", Set),
                (":sts::", "123456789012", Set),
                (":assumed-role/", "deploy", Set),
                ("/", "i-1", File),
            ],
            &[("arn:", "aws", Set), (":iam::", "123456789012", Set), (":user/", "team/deploy", Name)],
        ],
    },
    // Of an issuer that nobody knows: what stands in front of a `*` is not somebody's to choose.
    Composite {
        method: "oidc",
        section: "issuer: 'https://i.example', ",
        beside: "",
        field: "claims",
        claim: "sub",
        forms: &[&[("job/", "deploy", Set), ("/", "main", Branch)]],
    },
];
