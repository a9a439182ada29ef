"""Every api of the corpus that the tests read, and how: one line for each module of readers."""

import oracle
import oracle_bedrock
import oracle_cohere
import oracle_gemini
import oracle_responses

APIS = {
    **oracle.APIS,
    **oracle_bedrock.APIS,
    **oracle_cohere.APIS,
    **oracle_gemini.APIS,
    **oracle_responses.APIS,
}
